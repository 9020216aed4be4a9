"""Benchmarks of vivavoce, as programs: ``python -m bench`` (see docs/explanation/performance.md).

``server`` runs the real server with stand-in engines on one core; ``load`` is the load generator, a program of its
own on another; ``cases`` are the measurements, ``report`` shows and keeps them.
"""
