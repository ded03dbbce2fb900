"""How gRPC connects to a server."""

from __future__ import annotations

from ipaddress import ip_address


def channel_options(address: str) -> list[tuple[str, int]]:
    """No limit to the size of a message, and on loopback no proxy: none that `http_proxy` names reaches this machine.

    Args:
        address: `HOST:PORT`.
    """
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    return [*options, ("grpc.enable_http_proxy", 0)] if _is_loopback(address.rpartition(":")[0]) else options


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
