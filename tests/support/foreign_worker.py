"""A worker in another language: serves one queue in the way that its second argument names.

usage: foreign_worker.py URL CA QUEUE WAY     prints "ready" when it serves
"""

import asyncio
import json
import ssl
import sys

import nats


async def main(url, ca, queue, way):
    context = ssl.create_default_context(cafile=ca)
    nc = await nats.connect(url, tls=context)
    executed = 0

    async def say(message, kind, payload=b"", reply="", **headers):
        named = {"Fjord-Reply": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        await nc.publish(message.reply, payload, reply=reply, headers=named)

    async def consent(message):
        inbox = nc.new_inbox()
        answers = await nc.subscribe(inbox)
        await say(message, "claim", reply=inbox)
        answer = await answers.next_msg(timeout=2)
        return (answer.headers or {}).get("Fjord-Control") == "grant"

    async def work(message):
        nonlocal executed
        headers = message.headers or {}
        asked = json.loads(message.data)
        if way == "plain":
            await nc.publish(message.reply, json.dumps({"plain": asked["id"]}).encode())
        elif way == "service-error":
            await nc.publish(message.reply, b"", headers={"Nats-Service-Error-Code": "418", "Nats-Service-Error": "teapot"})
        elif way == "garbage":
            await nc.publish(message.reply, b"{", headers={"Fjord-Reply": "final", "Fjord-Status": "tea"})
        elif way == "two-finals":
            for number in ("1", "2"):
                await say(message, "final", number.encode(), Fjord_Status="200", Content_Type="application/json")
        elif way == "silent":
            executed += 1
        elif way == "missing-part":
            await say(message, "part", b"[1,", Fjord_Part="1")
            await say(message, "final", b"3]", Fjord_Status="200", Content_Type="application/json", Fjord_Part="2")
        elif way == "whole":
            if headers.get("Fjord-Execution") == "at-most-once" and not await consent(message):
                return
            executed += 1
            for _ in range(4):
                await asyncio.sleep(0.7)
                await say(message, "progress")
            known = {name: headers[name] for name in ("Fjord-Endpoint", "Fjord-Attempt", "Fjord-Execution", "traceparent")}
            text = json.dumps({"asked": asked, "known": known, "executed": executed})
            await say(message, "part", text[:10].encode(), Fjord_Part="1")
            await say(message, "part", text[10:20].encode(), Fjord_Part="2")
            await say(message, "final", text[20:].encode(), Fjord_Status="201", Content_Type="application/json", Fjord_Part="2")

    async def spawn(message):
        tasks.add(asyncio.get_running_loop().create_task(work(message)))

    tasks = set()
    await nc.subscribe(f"fjord.q.{queue}", queue=queue, cb=spawn)
    await nc.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
