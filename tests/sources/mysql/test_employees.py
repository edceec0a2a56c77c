"""A database of the kind that is on many servers: employees, their departments, titles and salaries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hosts import running
from tests.support.servers import TestDatabase, sequence

SCHEMA = """
CREATE TABLE employees (
    emp_no int NOT NULL PRIMARY KEY, birth_date date NOT NULL, first_name varchar(14) NOT NULL,
    last_name varchar(16) NOT NULL, gender enum('M','F') NOT NULL, hire_date date NOT NULL
);
CREATE TABLE departments (dept_no char(4) NOT NULL PRIMARY KEY, dept_name varchar(40) NOT NULL UNIQUE);
CREATE TABLE dept_emp (
    emp_no int NOT NULL, dept_no char(4) NOT NULL, from_date date NOT NULL, to_date date NOT NULL,
    FOREIGN KEY (emp_no) REFERENCES employees (emp_no) ON DELETE CASCADE,
    FOREIGN KEY (dept_no) REFERENCES departments (dept_no) ON DELETE CASCADE, PRIMARY KEY (emp_no, dept_no)
);
CREATE TABLE titles (
    emp_no int NOT NULL, title varchar(50) NOT NULL, from_date date NOT NULL, to_date date,
    FOREIGN KEY (emp_no) REFERENCES employees (emp_no) ON DELETE CASCADE, PRIMARY KEY (emp_no, title, from_date)
);
CREATE TABLE salaries (
    emp_no int NOT NULL, salary int NOT NULL, from_date date NOT NULL, to_date date NOT NULL,
    FOREIGN KEY (emp_no) REFERENCES employees (emp_no) ON DELETE CASCADE, PRIMARY KEY (emp_no, from_date)
);
"""
FILL = f"""
INSERT INTO departments SELECT CONCAT('d', LPAD(seq, 3, '0')), CONCAT('Department ', seq) FROM {sequence(9)};
INSERT INTO employees SELECT 10000 + seq, '1952-02-01' + INTERVAL seq % 4700 DAY, ELT(seq % 5 + 1, 'Georgi', 'Zoë',
    'Đorđe', 'Łucja', '太郎'), CONCAT('Facello', seq % 1637), ELT(seq % 2 + 1, 'M', 'F'),
    '1985-01-01' + INTERVAL seq % 5500 DAY FROM {sequence("{rows}")};
INSERT INTO dept_emp SELECT 10000 + seq, CONCAT('d', LPAD(seq % 9 + 1, 3, '0')), '1986-06-26', '9999-01-01'
    FROM {sequence("{rows}")};
INSERT INTO titles SELECT 10000 + seq, ELT(seq % 3 + 1, 'Engineer', 'Senior Engineer', 'Staff'), '1986-06-26',
    IF(seq % 4, '9999-01-01', NULL) FROM {sequence("{rows}")};
INSERT INTO salaries SELECT 10001 + (seq - 1) DIV 2, 38000 + seq % 91000, '1986-06-26' + INTERVAL seq % 2 YEAR,
    IF(seq % 2, '9999-01-01', '1987-06-26') FROM {sequence("{twice}")};
"""
TRACKING = {
    "departments": "dept_no",
    "employees": "emp_no",
    "dept_emp": "from_date",
    "titles": "emp_no",
    "salaries": "from_date",
}


@pytest.mark.parametrize("rows", [2_000, pytest.param(300_000, marks=pytest.mark.prove)])
def test_a_whole_database(either_mysql: TestDatabase, tmp_path: Path, rows: int) -> None:
    either_mysql.execute(SCHEMA)
    either_mysql.execute(FILL.format(rows=rows, twice=2 * rows))
    with running(tmp_path) as host:
        for table, tracking in TRACKING.items():
            host.configure(
                name=table, sourceConfig=either_mysql.source_config, sourceTable=table, targetTable=table,
                trackingColumn=tracking, isActive=False, lookbackSeconds=0,
            )  # fmt: skip
            run = host.sync(table)
            assert run["status"] == "success", run
            # Numbers of departments are texts, and given by hand.
            assert [("dept_no" in warning, "rise" in warning) for warning in run["warnings"]] == (
                [(True, True)] if table == "departments" else []
            ), run
            ((count,),) = either_mysql.fetch(f"SELECT COUNT(*) FROM {table}")
            assert host.query(f"SELECT count(*) FROM {table}") == [[count]]
            found = host.result("POST", f"/data-replication/verify/{table}", {})
            assert (found["rows_compared"], found["missing"], found["extra"], found["different"]) == (count, 0, 0, 0)
        either_mysql.execute(
            "INSERT INTO employees VALUES (9000000, '1999-01-01', 'Née', 'O''Hara', 'F', '2020-02-29');"
            "INSERT INTO salaries VALUES (10001, 60117, '2001-02-03', '9999-01-01')"
        )
        assert host.sync("employees")["records_processed"] == host.sync("salaries")["records_processed"] == 1
        joined = (
            "SELECT e.gender, e.first_name, s.salary, s.to_date FROM employees e LEFT JOIN salaries s USING (emp_no)"
            " WHERE emp_no IN (10001, 9000000) ORDER BY emp_no, s.from_date DESC"
        )
        first, *_, last = host.query(joined)
        assert (first, last) == (["F", "Zoë", 60117, "9999-01-01"], ["F", "Née", None, None])
