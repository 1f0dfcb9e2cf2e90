"""A worker in another language: serves queues in the way that WAY names.

usage: foreign_worker.py URL CA QUEUES WAY [EVERY]     prints "ready" when it serves

QUEUES are separated by commas. With EVERY, only each so-maniest request is treated in that way; the others are executed
as they should be, and "executed <request id>" is printed for each execution.
"""

import asyncio
import json
import ssl
import sys
import uuid

import nats


async def main(url, ca, queues, way, every=None):
    context = ssl.create_default_context(cafile=ca)
    nc = await nats.connect(url, tls=context)
    executed = arrived = jobs = 0
    own, controls = uuid.uuid4().hex, {}

    async def say(message, kind, payload=b"", **headers):
        """What has named its control subject once names it in each reply."""
        named = {"Fjord-Reply": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        await nc.publish(message.reply, payload, reply=controls.get(message.reply, ""), headers=named)

    async def control(message):
        nonlocal jobs
        jobs += 1
        queue = message.subject.split(".")[2]
        controls[message.reply] = f"fjord.w.{queue}.{own}.{jobs}"
        return await nc.subscribe(controls[message.reply])

    async def consent(message):
        answers = await control(message)
        await say(message, "claim")
        answer = await answers.next_msg(timeout=2)
        return (answer.headers or {}).get("Fjord-Control") == "grant"

    async def execute(message, finals):
        if message.headers.get("Fjord-Execution") == "at-most-once" and not await consent(message):
            return
        print("executed", message.headers["Fjord-Request-Id"], flush=True)
        for _ in range(finals):
            await say(message, "final", b'{"request_id": "x"}', Fjord_Status="200", Content_Type="application/json")

    async def work(message):
        nonlocal arrived
        arrived += 1
        if every and (arrived % int(every) or way == "two-finals"):
            await execute(message, 1 if arrived % int(every) else 2)
        else:
            await treat(message)

    async def treat(message):
        nonlocal executed
        headers = message.headers or {}
        if way == "careless":  # It reads neither headers nor payload.
            return await say(message, "final", b"{}", Fjord_Status="200", Content_Type="application/json")
        if way == "older":
            assert headers["Fjord-Execution"] not in ("at-least-once", "at-most-once")
            unknown = b'{"type": "urn:fjord:problem:invalid-request", "status": 400, "effect": "not-executed"}'
            return await say(message, "final", unknown, Fjord_Status="400", Content_Type="application/problem+json")
        if way == "dry":
            assert headers["Fjord-Execution"] == "dry-run" and "Fjord-Window" not in headers
            mark, payload = message.data[:8], message.data[8:]
            assert mark == b"dry-run " and await consent(message)
            proof = {"Fjord_Transaction": "rolled-back", "Fjord_Status": "200", "Content_Type": "application/json"}
            return await say(message, "final", payload, **proof)
        asked = json.loads(message.data)
        if way == "plain":
            print("executed", flush=True)
            await nc.publish(message.reply, json.dumps({"plain": asked["id"]}).encode())
        elif way == "service-error":
            await nc.publish(message.reply, b"", headers={"Nats-Service-Error-Code": "418", "Nats-Service-Error": "teapot"})
        elif way == "service-503":
            await nc.publish(message.reply, b"", headers={"Nats-Service-Error-Code": "503", "Nats-Service-Error": "away"})
        elif way == "final-503":
            await say(message, "final", b"{}", Fjord_Status="503", Content_Type="application/json")
        elif way == "part-503":
            await control(message)
            await say(message, "part", b"[1", Fjord_Part="1", Fjord_Status="503", Content_Type="application/json")
            await say(message, "final", b"]", Fjord_Part="1", Fjord_Status="503", Content_Type="application/json")
        elif way == "promise":
            promise = b'{"type": "urn:fjord:problem:expired", "status": 504, "effect": "not-executed"}'
            await say(message, "final", promise, Fjord_Status="504", Content_Type="application/problem+json")
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
        elif way.startswith("stream"):
            await stream(message, way)
        elif way == "whole":
            if headers.get("Fjord-Execution") == "at-most-once" and not await consent(message):
                return
            executed += 1
            for _ in range(4):
                await asyncio.sleep(0.7)
                await say(message, "progress")
            known = {name: headers[name] for name in ("Fjord-Endpoint", "traceparent")}
            known["Fjord-Attempt"] = headers.get("Fjord-Attempt", "1")
            known["Fjord-Execution"] = headers.get("Fjord-Execution", "at-least-once")
            text = json.dumps({"asked": asked, "known": known, "executed": executed})
            await say(message, "part", text[:10].encode(), Fjord_Part="1")
            await say(message, "part", text[10:20].encode(), Fjord_Part="2")
            await say(message, "final", text[20:].encode(), Fjord_Status="201", Content_Type="application/json", Fjord_Part="2")

    async def stream(message, way):
        """Three parts and the last piece, each part after the one before was taken; and what can go wrong."""
        taken = await control(message)
        whole = {"Fjord_Status": "200", "Content_Type": "application/json"}
        numbers = {"stream-missing": (1, 3), "stream-doubled": (1, 2, 2), "stream-silent": (1,)}.get(way, (1, 2, 3))
        assert way == "stream-blind" or message.headers["Fjord-Window"] == "2"
        for number in range(1, 8) if way == "stream-blind" else numbers:
            await say(message, "part", b"[1" if number == 1 else b",1", Fjord_Part=str(number), **(whole if number == 1 else {}))
            while way in ("stream", "stream-failed"):
                said = (await taken.next_msg(timeout=5)).headers
                assert said["Fjord-Control"] == "ack", said
                if int(said["Fjord-Part"]) == number:
                    break
        if way == "stream-garbage":
            await say(message, "part", b",1", Fjord_Part="tea")
        elif way == "stream-failed":
            await say(message, "final", b"{}", Fjord_Status="500", Content_Type="application/json", Fjord_Part="3", Fjord_Outcome="sql_error")
        elif way == "stream-renamed":
            await say(message, "final", b"", Fjord_Status="200", Content_Type="text/plain", Fjord_Part="3")
        elif way != "stream-silent":
            await say(message, "final", b"]", Fjord_Part="3", **whole)

    async def spawn(message):
        tasks.add(asyncio.get_running_loop().create_task(work(message)))

    tasks = set()
    for queue in queues.split(","):
        await nc.subscribe(f"fjord.q.{queue}", queue=queue, cb=spawn)
    await nc.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
