"""A monitor written with nats.py. It queries the NATS service API and prints all responses as a JSON array.

usage: python_monitor.py URL CA ANSWERS SUBJECT

It waits for ANSWERS responses, and 0.3 s longer for an unexpected one. Each response must be of the form that the client
library's own services have: parsing and encoding it must neither add nor remove anything.
"""

import asyncio
import json
import ssl
import sys

import nats
from nats.micro.service import ServiceInfo, ServicePing, ServiceStats

TYPES = {
    "io.nats.micro.v1.ping_response": ServicePing,
    "io.nats.micro.v1.info_response": ServiceInfo,
    "io.nats.micro.v1.stats_response": ServiceStats,
}


async def main(url, ca, expected, subject):
    nc = await nats.connect(url, tls=ssl.create_default_context(cafile=ca))
    inbox = nc.new_inbox()
    subscription = await nc.subscribe(inbox)
    await nc.publish(subject, b"", reply=inbox)
    answers = []
    try:
        while True:
            limit = 10 if len(answers) < int(expected) else 0.3
            answers.append(json.loads((await subscription.next_msg(timeout=limit)).data))
    except nats.errors.TimeoutError:
        pass
    for answer in answers:
        again = TYPES[answer["type"]].from_dict(answer).to_dict()
        assert again.keys() == answer.keys(), (again, answer)
        for known, own in zip(again.get("endpoints", []), answer.get("endpoints", [])):
            assert known == own, (known, own)
    print(json.dumps(answers), flush=True)
    await nc.close()


asyncio.run(main(*sys.argv[1:]))
