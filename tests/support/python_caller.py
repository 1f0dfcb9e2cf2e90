"""A caller written with nats.py. It sends a request to a worker and prints the headers and body of the final as JSON.

usage: python_caller.py URL CA QUEUE ENDPOINT PAYLOAD
"""

import asyncio
import json
import ssl
import sys

import nats


async def main(url, ca, queue, endpoint, payload):
    nc = await nats.connect(url, tls=ssl.create_default_context(cafile=ca))
    answer = await nc.request(f"fjord.q.{queue}", payload.encode(), timeout=5, headers={"Fjord-Endpoint": endpoint})
    print(json.dumps({"headers": answer.headers or {}, "body": answer.data.decode()}), flush=True)
    await nc.close()


asyncio.run(main(*sys.argv[1:]))
