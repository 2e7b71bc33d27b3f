"""``manage.py simulate_fleet``: simulates thousands of agents in one process, against a running server.

``planner`` decides from a seed, the time and the responses what each agent does next, and uses no socket. ``pool``
sends bytes over at most 1,000 connections and does not depend on agents. ``run`` connects the two.
"""
