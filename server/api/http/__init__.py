"""OpenAI's HTTP interface."""

from server.api.http.service import HttpService

__all__ = ["HttpService"]
