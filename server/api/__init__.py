"""The server's face: gRPC, health and metrics. Imports no JAX."""

from server.api.config import ServerConfig
from server.api.server import Server

__all__ = ["Server", "ServerConfig"]
