"""The streams of the site, below /live/: status, logs, prompts, and the gateway's question who may call.

A small ASGI application beside Django: a stream costs a few kilobytes, no thread and no database connection.
"""
