-- A bank that knows SQL and nothing else. Its effects and its answers are one transaction.

CREATE TABLE accounts (account TEXT PRIMARY KEY, cents BIGINT NOT NULL CHECK (cents >= 0));
CREATE TABLE postings (subject TEXT NOT NULL, operation TEXT NOT NULL, account TEXT NOT NULL, cents BIGINT NOT NULL);
CREATE TABLE orders (id TEXT PRIMARY KEY);
INSERT INTO accounts SELECT 'a' || n, 100000 FROM generate_series(0, 11) n;

-- Once, however often it is called: the order and its start are one transaction.
CREATE FUNCTION place(id TEXT, definition TEXT, input JSONB) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orders VALUES (place.id) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM sagamore.start(place.id, place.definition, place.input);
    END IF;
END $$;

-- Debits are taken by `prepare`, credits are given by `commit`; `execute` does either at once.
CREATE FUNCTION changes(operation TEXT, cents BIGINT) RETURNS BIGINT LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE operation
        WHEN 'execute' THEN cents
        WHEN 'compensate' THEN -cents
        WHEN 'prepare' THEN least(cents, 0)
        WHEN 'commit' THEN greatest(cents, 0)
        WHEN 'abort' THEN -least(cents, 0)
    END
$$;

CREATE FUNCTION work(participant TEXT) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
DECLARE
    command sagamore.todo;
    wish    JSONB;
    change  BIGINT;
BEGIN
    SELECT * INTO command FROM sagamore.take(participant);  -- locked until the end of this transaction
    IF command.number IS NULL THEN
        RETURN false;
    END IF;
    wish := CASE WHEN command.operation IN ('execute', 'prepare') THEN command.data ELSE command.data -> 'input' END;
    change := changes(command.operation, (wish ->> 'cents')::bigint);

    UPDATE accounts SET cents = cents + change WHERE account = wish ->> 'account' AND cents + change >= 0;
    IF FOUND THEN
        INSERT INTO postings VALUES (command.subject, command.operation, wish ->> 'account', change);
        PERFORM sagamore.reply(command.number, 'ok');
    ELSE
        PERFORM sagamore.reply(command.number, 'refused', reason => 'not enough money');
    END IF;
    RETURN true;
END $$;
