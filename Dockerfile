# One image for every process: the web server by default, `celery -A workers.app worker|beat` and `flask` by command.
FROM python:3.11-slim AS build
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements.txt

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home agenthq && install -d -o agenthq /data /exports
COPY --from=build /venv /venv
WORKDIR /app
COPY . .
RUN /venv/bin/python -m compileall -q .
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 BIND_HOST=0.0.0.0 PORT=8000 AGENTHQ_DATA=/data
USER agenthq
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-c", \
  "import os, urllib.request as http; http.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health/ready', timeout=4)"]
CMD ["gunicorn", "--config", "api/gunicorn.conf.py", "wsgi:app"]
