"""One search in several processes: KerasTuner's chief hands out trials over gRPC, workers run them.

The connection is neither encrypted nor authenticated, as KerasTuner makes it: whoever reaches the
port can take trials and report scores. It is for one machine or a network you trust.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import keras_tuner
from keras_tuner.src import protos
from keras_tuner.src.distribute import oracle_chief, oracle_client

from transfer import console
from transfer.errors import InputError
from transfer.tuning.deadline import Deadline

ANSWER_SECONDS = 60  # that a worker waits for its chief
FAREWELL_SECONDS = 10  # in which the workers hear that there are no more trials

# A second chief may not take the same port, and who connects has seconds to say how it speaks.
_OPTIONS = (("grpc.so_reuseport", 0), ("grpc.server_handshake_timeout_ms", 5_000))


def serve(oracle: keras_tuner.Oracle, address: str, deadline: Deadline) -> None:
    """Hands out trials until there are no more; when time is up, waits for those that run.

    Args:
        oracle: of the search.
        address: HOST:PORT to listen on.
        deadline: when to hand out no more.

    Raises:
        InputError: the address cannot be listened on.
    """
    servicer = oracle_chief.OracleServicer(oracle)
    with serving(servicer, address):
        console.say(
            f"Chief at {address}, neither encrypted nor authenticated: for one machine or a "
            "network you trust. Waiting for workers.",
        )
        while not (servicer.stop_triggered or deadline.passed) or oracle.ongoing_trials:
            oracle.closed = oracle.closed or deadline.passed
            time.sleep(0.1)
        oracle.closed = True
        farewell = time.monotonic() + FAREWELL_SECONDS
        while oracle.tuner_ids and time.monotonic() < farewell:
            time.sleep(0.1)
        time.sleep(0.5)  # the last answer is on its way


@contextlib.contextmanager
def serving(servicer: oracle_chief.OracleServicer, address: str) -> Iterator[None]:
    """Answers calls as long as the context lasts, one after the other.

    gRPC's server of asyncio gives a call its thread when its request is there whole. In the one of
    threads a call that sends nothing, or half, keeps its thread for ever, and all others wait.

    Args:
        servicer: answers them.
        address: HOST:PORT to listen on.

    Raises:
        InputError: the address cannot be listened on.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = None
    try:
        server = asyncio.run_coroutine_threadsafe(_start(servicer, address), loop).result()
        yield
    finally:
        if server is not None:
            asyncio.run_coroutine_threadsafe(server.stop(None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _start(servicer: oracle_chief.OracleServicer, address: str) -> grpc.aio.Server:
    # One thread answers: the oracle's files are written by one call at a time.
    server = grpc.aio.server(futures.ThreadPoolExecutor(max_workers=1), options=_OPTIONS)
    protos.get_service_grpc().add_OracleServicer_to_server(servicer, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise InputError(f"{address} cannot be listened on; take another --address.") from error
    await server.start()
    return server


@contextlib.contextmanager
def connection(address: str, worker: str) -> Iterator[oracle_client.OracleClient]:
    """Yields what stands for the chief's oracle in a worker.

    Args:
        address: HOST:PORT of the chief.
        worker: name of this worker.

    Raises:
        InputError: the chief does not answer.
    """
    host, _, port = address.rpartition(":")
    # KerasTuner takes them from the environment.
    os.environ |= {
        "KERASTUNER_ORACLE_IP": host,
        "KERASTUNER_ORACLE_PORT": port,
        "KERASTUNER_TUNER_ID": worker,
    }
    oracle_client.TIMEOUT = ANSWER_SECONDS  # of its hour
    try:
        yield oracle_client.OracleClient(None)
    except grpc.RpcError as error:
        raise InputError(
            f"the chief at {address} did not answer for {ANSWER_SECONDS} seconds; start it, then "
            "this worker again under the same --id."
        ) from error
