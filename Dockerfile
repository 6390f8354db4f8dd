# lsregen for the CPU. Neither image nor container was ever made from this file: it was written where no engine runs. Its
# build command was run by hand, and the file passes hadolint.
#
#     docker build --tag lsregen .
#     docker run --rm --volume "$PWD:/work" --user "$(id -u):$(id -g)" lsregen run graphs/lsregen.yaml
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked \
    && cp target/release/lsregen /lsregen

# glibc, libgcc and nothing else: no shell, and a user without rights.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /lsregen /usr/local/bin/lsregen
# Results and downloaded models. Mount a volume to keep them; any user of --user may write here.
ENV LSREGEN_CACHE_DIR=/tmp/lsregen-cache HF_HOME=/tmp/huggingface
WORKDIR /work
ENTRYPOINT ["lsregen"]
CMD ["--help"]
