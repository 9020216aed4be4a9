"""A self-hosted server of the Realtime API: speech in, speech out, over one WebSocket."""

from importlib.metadata import version

__version__ = version("vivavoce")
