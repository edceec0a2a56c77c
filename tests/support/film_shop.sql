-- A film rental shop, as PostgreSQL's samples have them: enums, domains, text search, arrays, bytea, partitions,
-- generated columns, triggers and views.
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE mpaa_rating AS ENUM ('G', 'PG', 'PG-13', 'R', 'NC-17');
CREATE DOMAIN year AS integer CHECK (VALUE BETWEEN 1901 AND 2155);
CREATE DOMAIN euros AS numeric(7, 2) CHECK (VALUE >= 0);
CREATE TYPE address AS (street text, city text, post_code varchar(10), place point);
CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.last_update = now(); RETURN NEW; END $$;

CREATE TABLE language (
    language_id smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name char(20) NOT NULL,
    last_update timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE film (
    film_id serial PRIMARY KEY, title varchar(128) NOT NULL, description text, release_year year,
    language_id smallint NOT NULL REFERENCES language, rental_duration interval NOT NULL DEFAULT '3 days',
    rental_rate euros NOT NULL DEFAULT 4.99, length smallint, rating mpaa_rating DEFAULT 'G',
    special_features text[], fulltext tsvector NOT NULL, facts jsonb, played daterange,
    minutes_an_euro numeric GENERATED ALWAYS AS (length / rental_rate) STORED,
    last_update timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON film USING gin (fulltext);
CREATE TRIGGER touched BEFORE UPDATE ON film FOR EACH ROW EXECUTE FUNCTION touched();
CREATE TABLE actor (actor_id serial PRIMARY KEY, first_name text, last_name text, last_update timestamptz DEFAULT now());
CREATE TABLE film_actor (
    actor_id int REFERENCES actor, film_id int REFERENCES film, last_update timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor_id, film_id)
);
CREATE TABLE staff (
    staff_id smallserial PRIMARY KEY, email citext UNIQUE, home address, picture bytea, active boolean DEFAULT true,
    password_hash bytea, token uuid DEFAULT gen_random_uuid(), seen_from inet, hours int4range[],
    last_update timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE payment (
    payment_id bigint GENERATED ALWAYS AS IDENTITY, staff_id smallint REFERENCES staff, amount euros NOT NULL,
    payment_date timestamptz NOT NULL, PRIMARY KEY (payment_date, payment_id)
) PARTITION BY RANGE (payment_date);
CREATE TABLE payment_01 PARTITION OF payment FOR VALUES FROM ('2026-01-01+00') TO ('2026-02-01+00');
CREATE TABLE payment_02 PARTITION OF payment FOR VALUES FROM ('2026-02-01+00') TO ('2026-03-01+00');
CREATE VIEW film_list AS
    SELECT f.film_id, f.title, f.rating, f.rental_rate, l.name AS language, f.last_update,
           array_agg(a.first_name || ' ' || a.last_name ORDER BY a.actor_id) AS actors
    FROM film f JOIN language l USING (language_id) JOIN film_actor USING (film_id) JOIN actor a USING (actor_id)
    GROUP BY f.film_id, l.name;
CREATE MATERIALIZED VIEW takings AS
    SELECT date_trunc('day', payment_date) AS day, sum(amount) AS amount, count(*) AS payments FROM payment GROUP BY 1;

INSERT INTO language (name) VALUES ('English'), ('日本語'), ('Français');
INSERT INTO actor (first_name, last_name) SELECT 'Zoë' || n, E'O\'Hara "the ' || n || '"' FROM generate_series(1, 40) n;
INSERT INTO film (title, description, release_year, language_id, rental_duration, rental_rate, length, rating,
                  special_features, fulltext, facts, played)
    SELECT 'ACADEMY DINOSAUR ' || n, CASE WHEN n % 7 > 0 THEN 'A café drama of a mad scientist № ' || n END,
           1901 + n % 200, 1 + n % 3, make_interval(days => 1 + n % 6, hours => n % 5), (n % 50) / 10.0 + 0.99, 40 + n,
           (enum_range(NULL::mpaa_rating))[1 + n % 5],
           CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}' WHEN 2 THEN '{Trailers,"Deleted Scenes"}' ELSE '{Other,NULL}' END::text[],
           to_tsvector('english', 'the academy has ' || n || ' mad dinosaurs'),
           jsonb_build_object('n', n, 'price', n / 7.0, 'tags', ARRAY['a', NULL]),
           daterange(date '2026-01-01' + n, CASE WHEN n % 3 > 0 THEN date '2026-06-01' + n END)
    FROM generate_series(1, 300) n;
INSERT INTO film_actor (actor_id, film_id) SELECT DISTINCT 1 + (n * 7) % 40, 1 + n % 300 FROM generate_series(1, 900) n;
INSERT INTO staff (email, home, picture, password_hash, seen_from, hours) VALUES
    ('Mike@Example.com', ROW('23 Workhaven Lane', 'Lethbridge', NULL, '(49.69,-112.84)'), '\x89504e470d0a5a0a00',
     sha256('secret'), '192.168.7.1/16', '{"[8,12)","[13,17)"}'),
    (NULL, NULL, NULL, '', '::1', '{}');
INSERT INTO payment (staff_id, amount, payment_date)
    SELECT 1 + n % 2, (n % 900) / 100.0, timestamptz '2026-01-01 00:00+00' + n * interval '37 minutes 0.001 seconds'
    FROM generate_series(1, 2000) n;
REFRESH MATERIALIZED VIEW takings;
