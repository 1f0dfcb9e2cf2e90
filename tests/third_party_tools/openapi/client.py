"""Calls a gateway with the generated package `kinds`: the URL of the gateway, and the file of its authority."""

import datetime
import sys

from kinds.api.typed import day_typed, large_typed
from kinds.client import Client
from kinds.models import Problem

url, authority = sys.argv[1:]
client = Client(base_url=url, verify_ssl=authority)

rows = large_typed.sync(client=client, rows=3)
assert [row.number for row in rows] == [1, 2, 3], rows
assert all(isinstance(row.text, str) for row in rows), rows

at = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)
answer = day_typed.sync(client=client, day=datetime.date(2024, 2, 29), at=at)
assert answer.day == datetime.date(2024, 2, 29), answer
assert answer.at == at, answer

problem = large_typed.sync(client=client, rows=-1)
assert isinstance(problem, Problem) and problem.errors[0].parameter == "rows", problem
