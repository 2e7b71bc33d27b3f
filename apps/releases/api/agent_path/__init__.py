"""The fast path for the requests that agents send continually: heartbeats, polls for an offer, and reports.

``application.AgentPath`` is a WSGI layer in front of Django. ``exchange`` recognizes the request, ``application``
checks the credential, rate limit and body, and ``waiting`` delays a poll until the agent's offer changes or the wait is
over. ``exchange`` sends the response, records metrics and, for some responses, writes a log line. Unusual requests are
passed to Django, whose views remain the reference.
"""
