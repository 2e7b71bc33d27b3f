"""The fast path for the requests that agents send continually: heartbeats, polls for an offer, and reports.

``application.AgentPath`` is a WSGI layer in front of Django. ``exchange`` recognizes the request, ``application``
checks credential, rate limit and body, ``waiting`` delays a poll until something changes, and ``exchange`` sends the
response with its metrics and log line. Unusual requests are passed to Django, whose views remain the reference: both
use the same functions, and a test compares their responses.
"""
