#!/usr/bin/env python3
"""Shipping for Sagamore, on confluent-kafka alone: no library of Sagamore's. It forgets everything when it ends."""
import argparse, json, os, signal, sys
from datetime import datetime
from confluent_kafka import Consumer, Producer

flags = argparse.ArgumentParser(description=__doc__)
for flag, default in [("kafka", "127.0.0.1:9092"), ("prefix", "sagamore"), ("participant", "shipping"), ("refuse", "Ireland,Norway,Poland")]:
    flags.add_argument(f"--{flag}", default=os.environ.get(f"SAGAMORE_{flag.upper()}", default))
options = flags.parse_args()
inbox, refused = f"{options.prefix}.inbox", set(options.refuse.split(","))
ECHO = ("instance", "subject", "birth", "step", "branch", "operation", "attempt", "replytoken")
remembered, horizons, parcels = {}, {}, set()  # what a database would keep, changed in one local transaction


def execute(branch, command):
    data = command.get("data")
    country = data.get("country") if isinstance(data, dict) else None
    if not isinstance(country, str):
        return {"outcome": "refused", "reason": "bad-input: a shipment has a country"}
    if country in refused:
        return {"outcome": "refused", "reason": f"no-carrier: {country}"}
    parcels.add(branch)
    return {"outcome": "ok", "data": {"tracking": f"trk-{command['subject']}-{command['birth']}"}}


def answer(command):
    branch = tuple(command[name] for name in ("instance", "subject", "birth", "step", "branch"))
    home, operation = (command["instance"], command["birth"].split("-")[0]), command["operation"]
    issued, watermark = (datetime.fromisoformat(command[name]) for name in ("issued", "watermark"))
    horizons[home] = max(horizons.get(home, watermark), min(issued, watermark))
    known = remembered.get(branch, {})
    if operation in known:  # a duplicate: the stored answer, nothing else
        return known[operation]
    if not known and issued < horizons[home]:  # it may have been done and forgotten: unknown, not no
        return {"outcome": "refused", "reason": "expired"}
    if operation == "execute":
        known = known | {"execute": execute(branch, command)}
    elif operation == "compensate":  # what has not been done until now must never be done
        known = {"execute": {"outcome": "refused", "reason": "cancelled"}} | known | {"compensate": {"outcome": "ok"}}
        parcels.discard(branch)
    else:
        return {"outcome": "refused", "reason": f"{operation}-not-supported"}
    remembered[branch] = known
    return known[operation]


def serve(message):
    command = json.loads(message.value() or b"")
    topic, _, home = command["replyto"].rpartition("/")
    if (command["specversion"], command["type"], topic) != ("1.0", "sagamore.command.v1", inbox) or not home.isdigit():
        raise ValueError(f"not a command with a reply to {inbox}")
    reply = {"specversion": "1.0", "type": "sagamore.reply.v1", "id": f"{command['id']}/reply", "source": f"/{options.participant}"}
    reply |= {name: command[name] for name in ECHO if name in command} | answer(command)
    producer.produce(inbox, json.dumps(reply), command["subject"], int(home), on_delivery=delivered)


def delivered(error, _):
    if error:  # end without a commit: whoever starts next takes the command again
        os._exit(print(f"reply not delivered: {error}", file=sys.stderr) or 1)


consumer = Consumer({"bootstrap.servers": options.kafka, "group.id": f"{options.prefix}.{options.participant}", "auto.offset.reset": "earliest",
                     "isolation.level": "read_committed", "enable.auto.commit": False, "fetch.queue.backoff.ms": 2})
producer = Producer({"bootstrap.servers": options.kafka, "enable.idempotence": True, "linger.ms": 0})
signal.signal(signal.SIGTERM, signal.default_int_handler)
consumer.subscribe([f"{options.prefix}.commands.{options.participant}"])
try:
    while first := consumer.poll(1.0) or True:
        for message in [] if first is True else [first, *consumer.consume(500, timeout=0)]:
            try:
                print(f"kafka: {message.error()}", file=sys.stderr) if message.error() else serve(message)
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # one bad record must not stop the others
                print(f"{message.topic()}/{message.partition()}/{message.offset()}: {error!r}", file=sys.stderr)
        if first is not True and not producer.flush():  # every reply is delivered before the commands are committed
            consumer.commit(asynchronous=True)
except KeyboardInterrupt:
    consumer.close()
