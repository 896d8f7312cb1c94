"""The witness as a program: `manage.py witness`, or `python -m audit.witness` without any Django."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from types import FrameType

from audit.checkpoints import files, signing, vkeys
from audit.errors import NoteError, SignerError
from audit.witness import policy
from audit.witness.judging import Judge
from audit.witness.server import WitnessServer
from audit.witness.state import State

HELP = "Witness logs: cosign what continues what was seen before, over HTTP (C2SP tlog-witness)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the witness's options."""
    parser.add_argument("--folder", required=True, help="where it keeps its key and its memory")
    parser.add_argument(
        "--listen", default="127.0.0.1:7380", help="address:port (default: 127.0.0.1:7380)"
    )
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="VKEY",
        help="a log's verifier key; repeatable",
    )
    parser.add_argument("--policy", help="a witness policy whose `log` lines are taken")
    parser.add_argument(
        "--name", default="", help="its name, at the first start (default: made up)"
    )
    parser.add_argument("--key", action="store_true", help="print its verifier key and end")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. One line says why it can't."""
    try:
        folder = files.private_folder(Path(options.folder))
        key = signing.witness_key(folder / "key.pem", _name(folder, options.name))
        if options.key:
            _say(key.verifier.text())
            return 0
        state = State(folder)
        try:
            judge = Judge(state, key, _logs(options.log, options.policy))
            _serve(WitnessServer(_address(options.listen), judge))
        finally:
            state.close()
    except (NoteError, SignerError) as error:
        sys.stderr.write(f"witness: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"witness: {error.strerror or error}\n")
        return 1
    return 0


def _serve(server: WitnessServer) -> None:
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2})
    thread.start()
    try:
        host, port = server.server_address[:2]
        _say(f"Witness {server.judge.vkey()}")
        _say(f"listening on {host!s}:{port}")
        stopping.wait()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _logs(given: Sequence[str], path: str | None) -> list[vkeys.VerifierKey]:
    found = [vkeys.parse_vkey(text) for text in given]
    if path:
        found += policy.load(Path(path)).logs
    if not found:
        raise NoteError("No log is named: give --log or --policy.")
    return list(dict.fromkeys(found))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise NoteError("--listen takes address:port.")
    return host.strip("[]"), int(port)


def _name(folder: Path, wanted: str) -> str:
    """Return the witness's name, which stays what it was at the first start. Raises SignerError."""
    path = folder / "name"
    if not path.exists():
        if not vkeys.sound_name(wanted or "made-up"):
            raise SignerError("A witness's name has no blanks and no '+'.")
        files.write(path, (wanted or f"kms-console.invalid/witness/{token_hex(4)}") + "\n")
    name = path.read_text(encoding="utf-8").strip()
    if wanted and wanted != name:
        raise SignerError(f"This witness is called {name}; another one needs another folder.")
    return name


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="witness", description=HELP)
    add_arguments(parser)
    return run(parser.parse_args(arguments))
