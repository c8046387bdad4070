// Node's `ws`: a process a core, one Redis subscription each, the text encoded once; it lets everyone in.
import cluster from 'node:cluster'
import { createServer } from 'node:http'
import { createClient } from 'redis'
import { WebSocketServer } from 'ws'

const PROCESSES = 2

if (cluster.isPrimary) {
  for (let started = 0; started < PROCESSES; started++) cluster.fork()
  process.on('SIGTERM', () => process.exit(0))
} else {
  const teams = new Map()
  const server = createServer()
  new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket, request) => {
    const team = new URL(request.url, 'http://localhost').pathname.slice('/ws/'.length)
    if (!teams.has(team)) teams.set(team, new Set())
    const sockets = teams.get(team).add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.terminate())
  })
  const redis = createClient({ url: process.env.REDIS_URL })
  await redis.connect()
  await redis.pSubscribe('team:*', (payload, channel) => {
    for (const socket of teams.get(channel.toString().slice('team:'.length)) ?? []) socket.send(payload, { binary: false })
  }, true)
  process.on('disconnect', () => process.exit(0))
  server.listen({ port: Number(process.env.PORT), host: '127.0.0.1', backlog: 4096 })
}
