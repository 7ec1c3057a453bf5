"""A client that pulls blobs over one connection: python -I -S pull_client.py PORT PATH=SIZE...

It says `ready` when it is connected, begins at the next line of its input, and says `done` when it has each byte.
"""

import socket
import sys

_HEAD_END = b"\r\n\r\n"


def main(port: str, *blobs: str) -> None:
    """Pull the blobs, and forget their bytes. Raises ValueError for another answer than their bytes."""
    connection = socket.create_connection(("127.0.0.1", int(port)))
    buffer = memoryview(bytearray(1 << 18))
    print("ready", flush=True)
    sys.stdin.readline()
    for blob in blobs:
        path, _, size = blob.rpartition("=")
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = b""
        while _HEAD_END not in head:
            received = connection.recv(4096)
            if not received:
                raise ValueError(f"the connection ended: {head!r}")
            head += received
        head, _, first = head.partition(_HEAD_END)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"the answer begins with {head!r}")
        left = int(size) - len(first)
        while left:
            received_size = connection.recv_into(buffer, min(left, len(buffer)))
            if not received_size:
                raise ValueError(f"{path} lacks {left} bytes")
            left -= received_size
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
