"""``manage.py simulate_fleet``: simulates thousands of agents against a running server.

``planner`` decides from a seed, the time and the responses what each agent does next, and uses no socket. ``pool``
sends bytes over a limited number of connections and does not depend on agents. ``run`` connects the two. They run in
one process, except in the scenario ``poll``, which uses child processes.
"""
