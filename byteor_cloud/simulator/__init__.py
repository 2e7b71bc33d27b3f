"""A simulated fleet: thousands of agents in one process, against a running server. ``manage.py simulate_fleet``.

``planner`` decides what each agent does next, from a seed and the time, and touches no socket. ``pool`` sends bytes
over at most 1,000 connections and knows nothing of agents. ``run`` connects the two.
"""
