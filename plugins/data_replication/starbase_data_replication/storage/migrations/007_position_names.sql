-- The names of a position's parts, as model/position.py has them now: `open_transactions` was `alive`, `fingerprint` was
-- `shape`, `shows_transactions` was `told`, `unknown_since` was `untold_since`. A position with a part that its reader does not know could not be read, and every replica would load again.

UPDATE tmp_replication_positions SET position = json_set(position, '$.candidates', json((
    SELECT json_group_array(json(json_remove(
        json_set(value, '$.open_transactions', value -> '$.alive', '$.unknown_since', value -> '$.untold_since'),
        '$.alive', '$.untold_since'
    )))
    FROM json_each(position, '$.candidates')
)));

UPDATE tmp_replication_positions
SET position = json_remove(json_set(position, '$.fingerprint', position -> '$.shape'), '$.shape')
WHERE json_type(position, '$.shape') IS NOT NULL;

UPDATE tmp_replication_positions
SET position = json_remove(json_set(position, '$.former.fingerprint', position -> '$.former.shape'), '$.former.shape')
WHERE json_type(position, '$.former.shape') IS NOT NULL;

UPDATE tmp_replication_positions
SET position = json_remove(json_set(position, '$.shows_transactions', position -> '$.told'), '$.told')
WHERE json_type(position, '$.told') IS NOT NULL;

UPDATE tmp_replication_positions
SET position = json_remove(json_set(position, '$.unknown_since', position -> '$.untold_since'), '$.untold_since')
WHERE json_type(position, '$.untold_since') IS NOT NULL;
