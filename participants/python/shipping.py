#!/usr/bin/env python3
"""Shipping for Sagamore, on confluent-kafka and sqlite3: no library of Sagamore's. What it has answered, it keeps."""
import argparse, json, os, signal, sqlite3, sys
from datetime import datetime
from confluent_kafka import Consumer, Producer, TopicPartition

flags = argparse.ArgumentParser(description=__doc__)
for flag, default in [("kafka", "127.0.0.1:9092"), ("prefix", "sagamore"), ("participant", "shipping"), ("refuse", "Ireland,Norway,Poland"), ("store", "shipping.db")]:
    flags.add_argument(f"--{flag}", default=os.environ.get(f"SAGAMORE_{flag.upper()}", default))
options = flags.parse_args()
inbox, refused = f"{options.prefix}.inbox", set(options.refuse.split(","))
ECHO = ("instance", "subject", "birth", "step", "branch", "operation", "attempt", "replytoken")
store = sqlite3.connect(options.store, isolation_level=None)
store.executescript("""PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS parcels (branch TEXT PRIMARY KEY, subject TEXT, country TEXT);
    CREATE TABLE IF NOT EXISTS rows (branch TEXT, operation TEXT, answer TEXT, PRIMARY KEY (branch, operation));
    CREATE TABLE IF NOT EXISTS horizons (home TEXT PRIMARY KEY, watermark REAL);""")


def execute(branch, command):
    data = command.get("data")
    country = data.get("country") if isinstance(data, dict) else None
    if not isinstance(country, str):
        return {"outcome": "refused", "reason": "bad-input: a shipment has a country"}
    if country in refused:
        return {"outcome": "refused", "reason": f"no-carrier: {country}"}
    store.execute("INSERT INTO parcels VALUES (?, ?, ?)", (branch, command["subject"], country))
    return {"outcome": "ok", "data": {"tracking": f"trk-{command['subject']}-{command['birth']}"}}


def keep(branch, operation, answer):
    store.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", (branch, operation, json.dumps(answer)))
    return answer


def answer(command):
    names = [command[name] for name in ("instance", "subject", "birth", "step", "branch")]
    branch, operation = json.dumps(names), command["operation"]
    home = json.dumps([command["instance"], command["birth"].split("-")[0]])
    issued, watermark = (datetime.fromisoformat(command[name]).timestamp() for name in ("issued", "watermark"))
    if not all(isinstance(name, str) for name in [*names, operation]) or not isinstance(command["attempt"], int):
        raise ValueError("an attribute of a wrong type")
    store.execute("INSERT INTO horizons VALUES (?, ?) ON CONFLICT DO UPDATE SET watermark = max(watermark, excluded.watermark)", (home, min(issued, watermark)))
    known = dict(store.execute("SELECT operation, answer FROM rows WHERE branch = ?", (branch,)))
    if operation in known:  # a duplicate: the stored answer, nothing else
        return json.loads(known[operation])
    if not known and issued < store.execute("SELECT watermark FROM horizons WHERE home = ?", (home,)).fetchone()[0]:
        return {"outcome": "refused", "reason": "expired"}  # it may have been done and forgotten: unknown, not no
    if operation == "execute":
        return keep(branch, operation, execute(branch, command))
    if operation == "compensate":  # what has not been done until now must never be done
        keep(branch, "execute", {"outcome": "refused", "reason": "cancelled"})
        store.execute("DELETE FROM parcels WHERE branch = ?", (branch,))
        return keep(branch, operation, {"outcome": "ok"})
    return {"outcome": "refused", "reason": f"{operation}-not-supported"}


def read(message):
    command = json.loads(message.value() or b"")
    topic, _, home = command["replyto"].rpartition("/")
    if (command["specversion"], command["type"], topic) != ("1.0", "sagamore.command.v1", inbox) or not home.isdigit():
        raise ValueError(f"not a command with a reply to {inbox}")
    return command, int(home)


def serve(message):
    try:  # a savepoint each: one bad record must not stop the others
        store.execute("SAVEPOINT command")
        command, home = read(message)
        reply = {"specversion": "1.0", "type": "sagamore.reply.v1", "id": f"{command['id']}/reply", "source": f"/{options.participant}"}
        reply |= {name: command[name] for name in ECHO if name in command} | answer(command)
        return command["subject"].encode(), home, json.dumps(reply)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        store.execute("ROLLBACK TO command")
        print(f"{message.topic()}/{message.partition()}/{message.offset()}: {error!r}", file=sys.stderr)


def delivered(error, _):
    if error:  # end without a commit: whoever starts next takes the command again
        os._exit(print(f"reply not delivered: {error}", file=sys.stderr) or 1)


# The name of the one instance: it comes back without a wait after a kill, and a second one on another file is fenced.
consumer = Consumer({"bootstrap.servers": options.kafka, "group.id": f"{options.prefix}.{options.participant}", "group.instance.id": options.participant,
                     "auto.offset.reset": "earliest", "isolation.level": "read_committed", "enable.auto.commit": False, "fetch.queue.backoff.ms": 2})
producer = Producer({"bootstrap.servers": options.kafka, "enable.idempotence": True, "linger.ms": 0})
signal.signal(signal.SIGTERM, signal.default_int_handler)
consumer.subscribe([f"{options.prefix}.commands.{options.participant}"])
try:
    while first := consumer.poll(1.0) or True:
        messages = [] if first is True else [first, *consumer.consume(500, timeout=0)]
        for message in filter(lambda message: message.error(), messages):
            print(f"kafka: {message.error()}", file=sys.stderr)
        store.execute("BEGIN IMMEDIATE") if messages else None
        replies = [reply for message in messages if not message.error() and (reply := serve(message))]
        store.execute("COMMIT") if messages else None  # effects and rows of all are kept before a reply leaves
        for key, home, reply in replies:
            producer.produce(inbox, reply, key, home, on_delivery=delivered)
        taken = {(message.topic(), message.partition()): message.offset() + 1 for message in messages if not message.error()}
        if taken and not producer.flush():  # every reply is delivered before the commands are committed: these, not what came since
            consumer.commit(offsets=[TopicPartition(*place, offset) for place, offset in taken.items()], asynchronous=True)
except KeyboardInterrupt:
    consumer.close()
