"""The path of what agents send all the time: heartbeats, polls for an offer, and reports.

``application.AgentPath`` is a WSGI layer in front of Django. ``exchange`` recognizes the request, ``application``
checks credential, limit and body, ``waiting`` delays a poll until something changes, and ``exchange`` sends the
response with its metrics and log line. Anything unusual goes on to Django, whose views stay the reference: both use
the same functions, and a test compares their responses.
"""
