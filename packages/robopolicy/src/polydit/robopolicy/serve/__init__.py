"""A policy behind a websocket, for robots whose control program runs elsewhere; needs the extra `serve`.

The wire: after a websocket handshake (with `Authorization: Bearer TOKEN` where the server asks for it) the server says
hello, and then answers each request with one message. A message is a binary frame that holds one msgpack map.

    server  {"type": "hello", "protocol": 1, "version": "0.1.0", "max_message": 33554432}
    client  {"type": "metadata"}
    server  {"type": "metadata", "name": ..., "observation": {key: {"dtype", "shape"}}, "tasks": [...],
             "action_dim": a, "horizon": h, "execute", "fps", "robot_type"}
    client  {"type": "reset", "seed": 0}
    server  {"type": "ready"}
    client  {"type": "act", "observation": {key: array or text}, "chunk": false}
    server  {"type": "actions", "actions": array (a) or, with "chunk", (h, a), "milliseconds": 11.8}
    server  {"type": "error", "usage": true, "problem", "where", "expected", "hint"}   instead of any of these

An array is the map {"__array__": "float32", "shape": [3], "data": bytes}: C order, little-endian.
"""
