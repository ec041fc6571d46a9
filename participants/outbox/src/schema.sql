-- Everything of outbox and inbox, in one schema; {s} is its name.

-- What leaves: one record a row, in the columns of Debezium's outbox event router. `stamps`: the relay writes `time` into
-- the payload when it first hands the row over, and remembers when that was.
CREATE TABLE {s}.outbox (
    id            UUID        NOT NULL DEFAULT gen_random_uuid(),
    aggregatetype TEXT        NOT NULL,
    aggregateid   TEXT        NOT NULL,
    type          TEXT        NOT NULL,
    payload       JSONB,
    seq           BIGINT      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stamps        BOOLEAN     NOT NULL DEFAULT false,
    handed_at     TIMESTAMPTZ
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- What can never leave, and why.
CREATE TABLE {s}.outbox_refused (
    id            UUID        NOT NULL,
    aggregatetype TEXT        NOT NULL,
    aggregateid   TEXT        NOT NULL,
    type          TEXT        NOT NULL,
    payload       JSONB,
    seq           BIGINT      PRIMARY KEY,
    stamps        BOOLEAN     NOT NULL,
    cause         TEXT        NOT NULL,
    refused_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- What came: a row an operation, open while `answer` is null. The answered ones are the barrier's memory. `attempt` is null
-- when a verdict asks, which is not replied to; `by_hand` says which operator has decided it, and is kept for ever.
CREATE TABLE {s}.commands (
    number      BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    participant TEXT    COLLATE "C" NOT NULL,
    key         BYTEA   NOT NULL,
    instance    UUID    NOT NULL,
    home        INT     NOT NULL,
    birth       BIGINT  NOT NULL,
    subject     TEXT    COLLATE "C" NOT NULL,
    step        TEXT    COLLATE "C" NOT NULL,
    branch      TEXT    COLLATE "C" NOT NULL,
    operation   TEXT    COLLATE "C" NOT NULL,
    attempt     BIGINT,
    issued_ms   BIGINT  NOT NULL,
    deadline    TIMESTAMPTZ,
    definition  TEXT,
    traceparent TEXT,
    replytoken  TEXT,
    data        JSONB,
    data_base64 TEXT,
    answer      TEXT    COLLATE "C" CHECK (answer IN ('done', 'refused', 'cancelled')),
    reason      TEXT,
    result      JSONB,
    by_hand     JSONB,
    in_doubt    BOOLEAN NOT NULL DEFAULT false,
    asked       INT     NOT NULL DEFAULT 0,
    asks_at     TIMESTAMPTZ,
    UNIQUE (instance, home, birth, subject, step, branch, operation)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX commands_open ON {s}.commands (participant, number) WHERE answer IS NULL;
CREATE INDEX commands_open_key ON {s}.commands (participant, key, number) WHERE answer IS NULL;
CREATE INDEX commands_in_doubt ON {s}.commands (number) WHERE in_doubt;

-- What was issued before it may have been purged.
CREATE TABLE {s}.horizon (
    instance   UUID   NOT NULL,
    home       INT    NOT NULL,
    horizon_ms BIGINT NOT NULL,
    PRIMARY KEY (instance, home)
);

CREATE VIEW {s}.todo AS
    SELECT number, participant, subject, home || '-' || birth AS birth, step, branch, operation, attempt, definition,
        deadline, traceparent, data, data_base64
    FROM {s}.commands WHERE answer IS NULL;

CREATE FUNCTION {s}.wire_time(moment TIMESTAMPTZ) RETURNS TEXT LANGUAGE sql STABLE AS $$
    SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;

-- Starts a transaction when this one commits. Without `issued`, `time` is when the start is first handed to Kafka.
CREATE FUNCTION {s}.start(
    id TEXT, definition TEXT, data JSONB DEFAULT NULL, issued TIMESTAMPTZ DEFAULT NULL, traceparent TEXT DEFAULT NULL
) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    record JSONB;
BEGIN
    IF start.id IS NULL OR start.id !~ '^[A-Za-z0-9._:-]{1,128}$' THEN
        RAISE EXCEPTION 'a transaction id has 1 to 128 of the characters A-Z a-z 0-9 . _ : -'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF start.definition IS NULL OR start.definition !~ '^[a-z0-9-]{1,32}(@[1-9][0-9]{0,8})?$' THEN
        RAISE EXCEPTION 'a definition is named like `order` or `order@3`, 1 to 32 of the characters a-z 0-9 -'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    record := jsonb_strip_nulls(jsonb_build_object(
            'specversion', '1.0', 'type', 'sagamore.start.v1', 'id', start.id || '/start', 'source', '/outbox',
            'time', {s}.wire_time(coalesce(start.issued, now())), 'subject', start.id,
            'definition', start.definition, 'traceparent', start.traceparent))
        || CASE WHEN start.data IS NULL THEN '{}' ELSE jsonb_build_object('data', start.data) END;
    IF octet_length(record::text) > {record_bytes_max} THEN
        RAISE EXCEPTION 'a start of % bytes: a record has at most {record_bytes_max}', octet_length(record::text)
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    INSERT INTO {s}.outbox (aggregatetype, aggregateid, type, payload, stamps)
        VALUES ('inbox', start.id, 'sagamore.start.v1', record, start.issued IS NULL);
END $$;

-- The next command that nobody works on: locked until the end of this transaction, and no two of one key at a time.
CREATE FUNCTION {s}.take(participant TEXT) RETURNS SETOF {s}.todo LANGUAGE plpgsql AS $$
DECLARE
    taken BIGINT;
BEGIN
    SELECT c.number INTO taken FROM {s}.commands c
        WHERE c.answer IS NULL AND c.participant = take.participant
            -- `OFFSET 0`: looked up row by row; joined, all that is open would be read for each one taken.
            AND NOT EXISTS (SELECT FROM {s}.commands e WHERE e.answer IS NULL AND e.participant = take.participant
                AND e.key = c.key AND e.number < c.number OFFSET 0)
        ORDER BY c.number LIMIT 1 FOR UPDATE OF c SKIP LOCKED;
    RETURN QUERY SELECT t.* FROM {s}.todo t WHERE t.number = taken;
END $$;

-- Answers a command when this transaction commits. `error` asks for it once more; `pending` leaves it open.
CREATE FUNCTION {s}.reply(command BIGINT, outcome TEXT, data JSONB DEFAULT NULL, reason TEXT DEFAULT NULL)
RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE
    c {s}.commands;
    record JSONB;
BEGIN
    IF reply.outcome IS NULL OR reply.outcome NOT IN ('ok', 'refused', 'error', 'pending') THEN
        RAISE EXCEPTION 'an outcome is ok, refused, error or pending' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT * INTO c FROM {s}.commands k WHERE k.number = reply.command AND k.answer IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'command % is not open', reply.command
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'it was answered, or cancelled meanwhile: roll back what was done for it';
    END IF;
    IF reply.outcome = 'refused' AND c.operation NOT IN ('execute', 'prepare') THEN
        RAISE EXCEPTION 'no business reason refuses %', c.operation USING ERRCODE = 'invalid_parameter_value',
            HINT = 'what fails technically is answered error, and asked again';
    END IF;
    IF reply.outcome = 'refused' AND coalesce(reply.reason, '') IN ('', 'expired') THEN
        RAISE EXCEPTION 'a refusal has a reason, and not `expired`, which means unknown'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF reply.data IS NOT NULL AND (reply.outcome <> 'ok' OR c.operation NOT IN ('execute', 'prepare')) THEN
        RAISE EXCEPTION 'only an execute or prepare answered ok has a result'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    CASE reply.outcome
        WHEN 'ok' THEN
            UPDATE {s}.commands k SET answer = 'done', result = reply.data, in_doubt = c.operation = 'prepare',
                data = CASE WHEN c.operation = 'prepare' THEN k.data END,
                data_base64 = CASE WHEN c.operation = 'prepare' THEN k.data_base64 END
                WHERE k.number = c.number;
            IF c.operation IN ('commit', 'abort') THEN
                UPDATE {s}.commands k SET in_doubt = false, data = NULL, data_base64 = NULL
                    WHERE (k.instance, k.home, k.birth, k.subject, k.step, k.branch, k.operation)
                        = (c.instance, c.home, c.birth, c.subject, c.step, c.branch, 'prepare');
            END IF;
        WHEN 'refused' THEN
            UPDATE {s}.commands k SET answer = 'refused', reason = reply.reason, data = NULL, data_base64 = NULL
                WHERE k.number = c.number;
        WHEN 'error' THEN
            DELETE FROM {s}.commands k WHERE k.number = c.number;
        ELSE
            NULL;
    END CASE;
    IF c.attempt IS NULL THEN
        RETURN;
    END IF;
    record := jsonb_strip_nulls(jsonb_build_object(
            'specversion', '1.0', 'type', 'sagamore.reply.v1',
            'id', concat_ws('/', c.subject, c.home || '-' || c.birth, c.step, c.branch, c.operation, c.attempt, 'reply'),
            'source', '/' || c.participant, 'instance', c.instance, 'subject', c.subject,
            'birth', c.home || '-' || c.birth, 'step', c.step, 'branch', c.branch, 'operation', c.operation,
            'attempt', c.attempt, 'outcome', reply.outcome, 'reason', reply.reason, 'replytoken', c.replytoken))
        || CASE WHEN reply.data IS NULL THEN '{}' ELSE jsonb_build_object('data', reply.data) END;
    IF octet_length(record::text) > {record_bytes_max} THEN
        RAISE EXCEPTION 'a reply of % bytes: a record has at most {record_bytes_max}', octet_length(record::text)
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    INSERT INTO {s}.outbox (aggregatetype, aggregateid, type, payload)
        VALUES ('inbox', c.subject, 'sagamore.reply.v1', record);
END $$;

-- Puts a refused row back, behind all others.
CREATE FUNCTION {s}.again(refused BIGINT) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    WITH gone AS (DELETE FROM {s}.outbox_refused r WHERE r.seq = again.refused RETURNING r.*)
    INSERT INTO {s}.outbox (id, aggregatetype, aggregateid, type, payload, stamps)
        SELECT g.id, g.aggregatetype, g.aggregateid, g.type, g.payload, g.stamps FROM gone g;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no refused row %', again.refused USING ERRCODE = 'no_data_found';
    END IF;
END $$;
