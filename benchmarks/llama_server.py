"""llama.cpp's own server as the package ``xllamacpp`` carries it, with ``llama-server``'s defaults.

    python llama_server.py MODEL.gguf PORT THREADS

Run by the environment that has the package; it knows nothing of greenroom.
"""

import signal
import sys

import xllamacpp


def main() -> None:
    """Serve until a signal ends it."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = sys.argv[1]
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(sys.argv[2])
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = int(sys.argv[3])
    # What llama-server makes of "auto": four slots that share the context's cache.
    parameters.n_parallel = 4
    parameters.kv_unified = True
    server = xllamacpp.Server(parameters)
    print(xllamacpp.get_system_info(), server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main()
