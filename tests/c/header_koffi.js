// Reads the whole header with koffi and finds every function in the library. Arguments: header, library, names.
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const koffi = require('koffi');

const [header, library, ...names] = process.argv.slice(2);
const text = fs.readFileSync(header, 'utf8').replace(/\s+/g, ' ');
for (const [, name] of text.matchAll(/typedef struct (\w+) \1;/g)) koffi.opaque(name);
for (const [, type, name] of text.matchAll(/typedef (int32_t) (\w+);/g)) koffi.alias(name, type);
const [, fields] = text.match(/typedef struct \{([^}]*)\} vigie_node;/);
const members = fields.split(';').map((field) => field.trim().split(' ')).filter((field) => field.length === 2);
const node = koffi.struct('vigie_node', Object.fromEntries(members.map(([type, name]) => [name, type])));
assert.strictEqual(koffi.sizeof(node), 24);

const lib = koffi.load(library);
const functions = {};
const declarations = text.replace(/typedef enum \{[^}]*\} \w+;|typedef struct \{[^}]*\} \w+;|typedef [^;]*;/g, '');
for (const [, prototype] of declarations.matchAll(/([\w][\w *]*\bvigie_\w+\([^;]*\));/g)) {
  functions[prototype.match(/(vigie_\w+)\(/)[1]] = lib.func(prototype);
}
assert.deepStrictEqual(Object.keys(functions).sort(), names);
assert.strictEqual(functions.vigie_status_name(-103), 'VIGIE_ERR_TIMEOUT');
console.log(functions.vigie_version());
