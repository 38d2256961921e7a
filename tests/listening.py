"""On which addresses and ports processes listen, and what they answer a browser."""

import http.client
import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

_LISTENS: Final = "0A"  # a socket's state, as in Linux's include/net/tcp_states.h
_ANSWER_S: Final = 3.0


class Door(NamedTuple):
    """A TCP port that a process listens on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether no other machine gets there."""
        address = ipaddress.ip_address(self.host)
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_loopback

    def page(self) -> tuple[int, bytes] | None:
        """Status and body of the front page; None where HTTP is not spoken."""
        host = "localhost" if ipaddress.ip_address(self.host).is_unspecified else self.host
        connection = http.client.HTTPConnection(host, self.port, timeout=_ANSWER_S)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


def doors_of(pids: Iterable[int]) -> set[Door]:
    """Those of some processes."""
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    return {
        Door(_address(fields[1].partition(":")[0]), int(fields[1].partition(":")[2], 16))
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:])
        if fields[3] == _LISTENS and fields[9] in inodes
    }


def _sockets(pid: int) -> set[str]:
    """Inodes of a process's sockets; none if it is gone."""
    try:
        links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return set()
    return {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}


def _address(text: str) -> str:
    """An address of /proc/net/tcp or tcp6: hexadecimal, each 32-bit word in the processor's order of bytes."""
    raw = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
