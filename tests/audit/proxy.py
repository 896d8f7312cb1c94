"""A door before PostgreSQL's socket that can be shut just when a commit's answer is due."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from urllib.parse import quote

SOCKET = ".s.PGSQL.5432"
# What the server's CommandComplete says; whatever message the statement came in.
COMMITTED = b"COMMIT\0"


class Proxy:
    """Passes bytes both ways until told to `cut` the answer to the next COMMIT.

    The server has then committed, and the client can't know.
    """

    def __init__(self, server: Path, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._cut = threading.Event()
        self.cuts = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / SOCKET))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, name: str) -> str:
        return f"postgresql://postgres@{quote(str(self._folder), safe='')}/{name}"

    def cut(self) -> None:
        """Lose the answer to the next COMMIT together with the connection."""
        self._cut.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            try:
                server.connect(str(self._server / SOCKET))
            except OSError:
                return  # the server is away: so is this connection
            back = threading.Thread(target=self._back, args=(server, client))
            back.start()
            while data := self._received(client):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join()

    def _shut(self, client: socket.socket) -> None:
        self._cut.clear()
        self.cuts += 1
        client.shutdown(socket.SHUT_RDWR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        while data := self._received(server):
            if COMMITTED in data and self._cut.is_set():
                self._shut(client)
            try:
                client.sendall(data)
            except OSError:
                continue  # keep reading, so that the server can finish
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            return

    @staticmethod
    def _received(end: socket.socket) -> bytes:
        try:
            return end.recv(65536)
        except OSError:
            return b""
