"""What the machine has: memory, told from its control groups too, and the CPU's number formats."""

import os

import pytest

from transfer import machine
from transfer.machine import cpu_flags, usable_memory
from transfer.models.precision import AMX, AVX512

MACHINE = 24_000
V1, V2 = "memory/{}memory.limit_in_bytes", "{}memory.max"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Returns what is told of a process in these groups, with these files of limits."""
    monkeypatch.setattr(machine, "_machine_memory", lambda: MACHINE)
    monkeypatch.setattr(machine, "_MEMBERSHIPS", tmp_path / "memberships")
    monkeypatch.setattr(machine, "_VERSION_1", (tmp_path / "memory", "memory.limit_in_bytes"))
    monkeypatch.setattr(machine, "_VERSION_2", (tmp_path, "memory.max"))

    def tell(memberships: str, files: dict[str, object]) -> int:
        (tmp_path / "memberships").write_text(memberships)
        for name, limit in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{limit}\n")
        return usable_memory()

    return tell


@pytest.mark.parametrize(
    ("memberships", "files", "expected"),
    [
        ("0::/\n", {}, MACHINE),  # the root group has no such file
        ("0::/user.slice/shell\n", {V2.format("user.slice/shell/"): "max"}, MACHINE),
        ("0::/system.slice/web.service\n", {V2.format("system.slice/web.service/"): 8_000}, 8_000),
        ("0::/a/b\n", {V2.format("a/b/"): "max", V2.format("a/"): 5_000}, 5_000),  # of the parent
        ("0::/a/b\n", {V2.format("a/b/"): 9_000, V2.format("a/"): 5_000}, 5_000),
        ("0::/a\n", {V2.format("b/"): 5_000}, MACHINE),  # another's
        ("0::/\n", {V2.format(""): 6_000}, 6_000),  # in a container, which sees itself as the root
        ("0::/a\n", {V2.format("a/"): 99_000}, MACHINE),  # more than there is
        ("5:cpu,memory:/a\n0::/\n", {V1.format("a/"): 7_000}, 7_000),
        ("5:memory:/a\n", {V1.format("a/"): 9223372036854771712}, MACHINE),  # no limit
        # Docker with version 1: the path is the host's, the limit stands at the mount.
        ("5:memory:/docker/0a1b\n0::/\n", {V1.format(""): 4_000}, 4_000),
        ("9:name=systemd:/a:b\n5:cpu:/a\n", {V1.format("a/"): 4_000}, MACHINE),
    ],
)
def test_the_least_limit_counts(told, memberships, files, expected):
    assert told(memberships, files) == expected


def test_a_group_with_any_name_is_read(told, tmp_path):
    told("", {V2.format(""): 6_000})
    (tmp_path / "memberships").write_bytes(b"0::/caf\xe9\n")
    assert usable_memory() == 6_000


def test_without_control_groups_it_is_the_machines(told, tmp_path, monkeypatch):
    assert told("0::/a\n", {V2.format("a/"): 5_000}) == 5_000
    monkeypatch.setattr(machine, "_MEMBERSHIPS", tmp_path / "missing")
    assert usable_memory() == MACHINE


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="this system does not tell its memory")
def test_here_it_is_at_most_the_machines():
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < usable_memory() <= machine


def test_cpu_flags_are_words(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags : fpu avx512_bf16x amx_bf16 amx_tile\n")
    assert AMX in cpu_flags(path) and AVX512 not in cpu_flags(path)


def test_a_machine_without_cpuinfo_has_none(tmp_path):
    assert cpu_flags(tmp_path / "missing") == frozenset()
