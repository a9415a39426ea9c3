"""HTTP. The dashboard: pages for people, made on the server; without scripts of others, and usable without any.

sessions.py    sessions, and the limit on failed sign-ins
shared.py      the same for several processes on one port
frame.py       around every page: the session, the CSRF token, errors in the dashboard's own look
pages.py       templates, static files, and the headers of both
chart.py · words.py                      an hour's refunds as a picture; values as people read them
signing_in.py · overview.py · refunds.py · subscribers.py    the pages
routes.py      all of them in one list
"""
