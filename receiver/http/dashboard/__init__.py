"""HTTP. The dashboard: pages rendered on the server, without third-party scripts, and usable without JavaScript.

sessions.py    sessions
shared.py      sessions for several processes on one port
guard.py       around every page: the session, the CSRF token, errors as dashboard pages
pages.py       templates, static files, and their headers
chart.py       the chart of refunds by hour
filters.py     values formatted for people
signing_in.py · overview.py · refund_list.py · refunds.py    the pages
cases.py · jobs.py · requests.py · subscribers.py             and those that act
timeline.py    what happened to one refund, by day
routes.py      all routes in one list
"""
