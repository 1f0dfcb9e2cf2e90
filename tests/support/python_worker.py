"""A worker written with nats.py that serves queues and behaves as BEHAVIOR specifies.

usage: python_worker.py URL CA QUEUES BEHAVIOR [EVERY]     prints "ready" when it serves

QUEUES are separated by commas. With EVERY, only every EVERY-th request gets that behaviour; the others are executed
correctly, and "executed <request id>" is printed for each execution.
"""

import asyncio
import json
import ssl
import sys
import uuid

import nats


async def main(url, ca, queues, behaviour, every=None):
    context = ssl.create_default_context(cafile=ca)
    nc = await nats.connect(url, tls=context)
    executed = received = jobs = 0
    own, controls = uuid.uuid4().hex, {}

    async def send(message, kind, payload=b"", **headers):
        """Sends a reply, which names the request's control subject if there is one."""
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
        await send(message, "claim")
        answer = await answers.next_msg(timeout=2)
        return (answer.headers or {}).get("Fjord-Control") == "grant"

    async def execute(message, finals):
        if message.headers.get("Fjord-Execution") == "at-most-once" and not await consent(message):
            return
        print("executed", message.headers["Fjord-Request-Id"], flush=True)
        for _ in range(finals):
            await send(message, "final", b'{"request_id": "x"}', Fjord_Status="200", Content_Type="application/json")

    async def work(message):
        nonlocal received
        received += 1
        if every and (received % int(every) or behaviour == "two-finals"):
            await execute(message, 1 if received % int(every) else 2)
        else:
            await misbehave(message)

    async def misbehave(message):
        nonlocal executed
        headers = message.headers or {}
        if behaviour == "careless":  # It ignores headers and payload.
            return await send(message, "final", b"{}", Fjord_Status="200", Content_Type="application/json")
        if behaviour == "older":
            assert headers["Fjord-Execution"] not in ("at-least-once", "at-most-once")
            unknown = b'{"type": "urn:fjord:problem:invalid-request", "status": 400, "effect": "not-executed"}'
            return await send(message, "final", unknown, Fjord_Status="400", Content_Type="application/problem+json")
        if behaviour == "dry":
            assert headers["Fjord-Execution"] == "dry-run" and "Fjord-Window" not in headers
            mark, payload = message.data[:8], message.data[8:]
            assert mark == b"dry-run " and await consent(message)
            proof = {"Fjord_Transaction": "rolled-back", "Fjord_Status": "200", "Content_Type": "application/json"}
            return await send(message, "final", payload, **proof)
        request = json.loads(message.data)
        if behaviour == "plain":
            print("executed", flush=True)
            await nc.publish(message.reply, json.dumps({"plain": request["id"]}).encode())
        elif behaviour == "service-error":
            await nc.publish(message.reply, b"", headers={"Nats-Service-Error-Code": "418", "Nats-Service-Error": "teapot"})
        elif behaviour == "service-503":
            await nc.publish(message.reply, b"", headers={"Nats-Service-Error-Code": "503", "Nats-Service-Error": "unavailable"})
        elif behaviour == "final-503":
            await send(message, "final", b"{}", Fjord_Status="503", Content_Type="application/json")
        elif behaviour == "part-503":
            await control(message)
            await send(message, "part", b"[1", Fjord_Part="1", Fjord_Status="503", Content_Type="application/json")
            await send(message, "final", b"]", Fjord_Part="1", Fjord_Status="503", Content_Type="application/json")
        elif behaviour == "promise":
            promise = b'{"type": "urn:fjord:problem:expired", "status": 504, "effect": "not-executed"}'
            await send(message, "final", promise, Fjord_Status="504", Content_Type="application/problem+json")
        elif behaviour == "garbage":
            await nc.publish(message.reply, b"{", headers={"Fjord-Reply": "final", "Fjord-Status": "tea"})
        elif behaviour == "two-finals":
            for number in ("1", "2"):
                await send(message, "final", number.encode(), Fjord_Status="200", Content_Type="application/json")
        elif behaviour == "silent":
            executed += 1
        elif behaviour == "missing-part":
            await send(message, "part", b"[1,", Fjord_Part="1")
            await send(message, "final", b"3]", Fjord_Status="200", Content_Type="application/json", Fjord_Part="2")
        elif behaviour.startswith("stream"):
            await stream(message, behaviour)
        elif behaviour == "whole":
            if headers.get("Fjord-Execution") == "at-most-once" and not await consent(message):
                return
            executed += 1
            for _ in range(4):
                await asyncio.sleep(0.7)
                await send(message, "progress")
            known = {name: headers[name] for name in ("Fjord-Endpoint", "traceparent")}
            known["Fjord-Attempt"] = headers.get("Fjord-Attempt", "1")
            known["Fjord-Execution"] = headers.get("Fjord-Execution", "at-least-once")
            text = json.dumps({"asked": request, "known": known, "executed": executed})
            await send(message, "part", text[:10].encode(), Fjord_Part="1")
            await send(message, "part", text[10:20].encode(), Fjord_Part="2")
            await send(message, "final", text[20:].encode(), Fjord_Status="201", Content_Type="application/json", Fjord_Part="2")

    async def stream(message, behaviour):
        """Sends three parts and the final, each part after the previous one was acknowledged, or an invalid sequence."""
        taken = await control(message)
        whole = {"Fjord_Status": "200", "Content_Type": "application/json"}
        numbers = {"stream-missing": (1, 3), "stream-doubled": (1, 2, 2), "stream-silent": (1,)}.get(behaviour, (1, 2, 3))
        assert behaviour == "stream-blind" or message.headers["Fjord-Window"] == "2"
        for number in range(1, 8) if behaviour == "stream-blind" else numbers:
            await send(message, "part", b"[1" if number == 1 else b",1", Fjord_Part=str(number), **(whole if number == 1 else {}))
            while behaviour in ("stream", "stream-failed"):
                said = (await taken.next_msg(timeout=5)).headers
                assert said["Fjord-Control"] == "ack", said
                if int(said["Fjord-Part"]) == number:
                    break
        if behaviour == "stream-garbage":
            await send(message, "part", b",1", Fjord_Part="tea")
        elif behaviour == "stream-failed":
            await send(message, "final", b"{}", Fjord_Status="500", Content_Type="application/json", Fjord_Part="3", Fjord_Outcome="sql_error")
        elif behaviour == "stream-renamed":
            await send(message, "final", b"", Fjord_Status="200", Content_Type="text/plain", Fjord_Part="3")
        elif behaviour != "stream-silent":
            await send(message, "final", b"]", Fjord_Part="3", **whole)

    async def spawn(message):
        tasks.add(asyncio.get_running_loop().create_task(work(message)))

    tasks = set()
    for queue in queues.split(","):
        await nc.subscribe(f"fjord.q.{queue}", queue=queue, cb=spawn)
    await nc.flush()
    print("ready", flush=True)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
