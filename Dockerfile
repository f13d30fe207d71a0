# The commands of dinogrl_jax in a container; docs/deploy.md says how it is built and run.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3-venv \
 && rm -rf /var/lib/apt/lists/*
# video,cuda for GPUs
ARG EXTRAS=video
COPY LICENSE MANIFEST.in README.md pyproject.toml setup.py /src/
COPY configs /src/configs
COPY dinogrl_jax /src/dinogrl_jax
COPY scripts /src/scripts
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir "/src[${EXTRAS}]" \
 && rm -r /src
ENV PATH=/opt/venv/bin:$PATH JAX_COMPILATION_CACHE_DIR=/cache
RUN useradd --uid 1000 --create-home user && mkdir /cache /data && chown user /cache /data
USER user
WORKDIR /data
VOLUME /cache
ENTRYPOINT ["dinogrl_jax"]
