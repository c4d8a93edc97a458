# CPU image: installs everything, then works without a network, as a user without rights.
#
#     docker build -t transfer .
#     docker run --rm --network none -v "$PWD:/work" transfer train --data sample --limit 600
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 user
WORKDIR /src
COPY requirements.txt pyproject.toml README.md LICENSE ./
COPY transfer transfer
RUN pip install --no-cache-dir -r requirements.txt && pip install --no-cache-dir --no-deps .

USER user
WORKDIR /work
ENV TRANSFER_OFFLINE=1 PYTHONUNBUFFERED=1
ENTRYPOINT ["transfer"]
CMD ["--help"]
