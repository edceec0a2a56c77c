-- Open transactions that are unknown only for now are `transient`; they were `passing`. A position with a part that its
-- reader does not know could not be read, and every replica would load again.

UPDATE tmp_replication_positions SET position = json_set(position, '$.candidates', json((
    SELECT json_group_array(json(json_remove(
        json_set(value, '$.open_transactions.transient', json(coalesce(value -> '$.open_transactions.passing', 'false'))),
        '$.open_transactions.passing'
    )))
    FROM json_each(position, '$.candidates')
)))
WHERE json_array_length(position, '$.candidates') > 0;
