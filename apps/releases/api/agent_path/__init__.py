"""The path of what agents send all the time: heartbeats, polls for an offer, and reports.

``application.AgentPath`` is a WSGI layer in front of Django. It reads from top to bottom: ``routes`` recognizes the
request, ``application`` checks credential, limit and body, ``waiting`` holds back a poll until something changes, and
``answers`` writes the response, the metrics and the log line. Anything unusual goes on to Django, whose views
stay the reference: both use the same functions, and a test compares their answers.
"""
