-- The demo's shop: orders that keep changing, with a trigger that stamps what changes.
CREATE TABLE orders (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer   text NOT NULL,
    status     text NOT NULL,
    amount     numeric(10, 2) NOT NULL,
    details    jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON orders (updated_at);

CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION stamp();

INSERT INTO orders (customer, status, amount, details, updated_at)
SELECT 'customer ' || n % 500,
       (ARRAY['new', 'paid', 'packed', 'sent'])[1 + n % 4],
       (n * 7919 % 100000) / 100.0,
       jsonb_build_object('items', 1 + n % 5, 'note', 'order number ' || n),
       now() - make_interval(secs => 5000 - n)
FROM generate_series(1, 5000) AS n;
