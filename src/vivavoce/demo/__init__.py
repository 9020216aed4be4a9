"""``vivavoce demo``: a small client that holds one spoken conversation and shows what happens.

The room imports nothing of ours: it knows the server only through its WebSocket, so that the same demo
talks to vivavoce and to the real service.
"""
