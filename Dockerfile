# Everything but vLLM, ready for `make test`, `make report` and `make lab`. Not built by the tests:
#   docker build -t ssjf . && docker run --rm ssjf
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends chromium chromium-driver g++ git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /work/ssjf
# The packages first: they stay when only the code changes.
COPY pyproject.toml constraints.txt README.md LICENSE Makefile ./
COPY ssjf/__init__.py ssjf/__init__.py
RUN make .venv/.test
COPY . .
CMD ["make", "report"]
