// JSON-lines driver of ts-mls with our patch: the browser's implementation. Same operations as tests/interop/mls_driver.py.
//
//     node tests/interop/peers/ts_mls_driver.mjs WEB_NODE_MODULES

import { createHash } from "node:crypto";
import path from "node:path";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const root = path.join(process.argv[2], "ts-mls/dist/src");
const load = (file) => import(pathToFileURL(path.join(root, file)).href);
const mls = await load("index.js");
const { decryptSenderData } = await load("privateMessage.js");
const { encodeExternalSenders } = await load("externalSender.js");
const { decodeRatchetTree, encodeRatchetTree } = await load("ratchetTree.js");
const { defaultClientConfig } = await load("clientConfig.js");

const bytes = (hex) => new Uint8Array(Buffer.from(hex ?? "", "hex"));
const hex = (data) => Buffer.from(data).toString("hex");
const text = new TextEncoder();
const clients = new Map();
const suites = new Map();

async function suiteOf(code) {
  if (!suites.has(code)) {
    const name = Object.keys(mls.ciphersuites).find((key) => mls.ciphersuites[key] === code);
    suites.set(code, await mls.getCiphersuiteImpl(mls.getCiphersuiteFromName(name)));
  }
  return suites.get(code);
}

function decode(encoded, wireformat) {
  const found = mls.decodeMlsMessage(bytes(encoded), 0);
  if (!found || found[1] !== encoded.length / 2) throw new Error("not exactly one MLSMessage");
  if (wireformat && found[0].wireformat !== wireformat) throw new Error(`a ${found[0].wireformat} came instead`);
  return found[0];
}

const encode = (message) => hex(mls.encodeMlsMessage({ version: "mls10", ...message }));
const psksOf = (client) => mls.makePskIndex(client.state, client.psks);

function extensions(listed) {
  const names = Object.entries(mls.defaultExtensionTypes);
  return (listed ?? []).map((item) => ({
    extensionType: names.find(([, code]) => code === item.type)?.[0] ?? item.type,
    extensionData: bytes(item.data),
  }));
}

function pskProposal(id) {
  const preSharedKeyId = { psktype: "external", pskId: bytes(id), pskNonce: crypto.getRandomValues(new Uint8Array(32)) };
  return { proposalType: "psk", psk: { preSharedKeyId } };
}

function proposals(request) {
  const adds = (request.adds ?? []).map((kp) => decode(kp, "mls_key_package").keyPackage);
  const context = request.gce ? [{ extensions: extensions(request.gce) }] : [];
  return [
    ...(request.removes ?? []).map((removed) => ({ proposalType: "remove", remove: { removed } })),
    ...adds.map((keyPackage) => ({ proposalType: "add", add: { keyPackage } })),
    ...context.map((value) => ({ proposalType: "group_context_extensions", groupContextExtensions: value })),
    ...(request.psks ?? []).map(pskProposal),
  ];
}

async function newKeyPackage(client, request) {
  const capabilities = { ...mls.defaultCapabilities(), extensions: request.extensions ?? [] };
  const credential = { credentialType: "basic", identity: text.encode(client.identity) };
  const { keys, suite } = client;
  return mls.generateKeyPackageWithKey(credential, capabilities, mls.defaultLifetime, [], keys, suite);
}

const isPublic = (request) => (request.wire ?? "public") === "public";
const wasRemoved = (client) => client.state.groupActiveState.kind === "removedFromGroup";

async function receivePrivate(client, message) {
  const current = message.epoch === client.state.groupContext.epoch;
  const past = client.state.historicalReceiverData.get(message.epoch);
  const secret = current ? client.state.keySchedule.senderDataSecret : past?.senderDataSecret;
  const result = await mls.processPrivateMessage(client.state, message, psksOf(client), client.suite);
  // 1.6 does not report who sent.
  const sender = (await decryptSenderData(message, secret, client.suite)).leafIndex;
  client.state = result.newState;
  const aad = hex(message.authenticatedData);
  if (result.kind === "applicationMessage")
    return { kind: "application", data: hex(result.message), aad, sender, epoch: Number(message.epoch) };
  return { kind: message.contentType, sender, removed: wasRemoved(client), aad };
}

const ops = {
  async hello() {
    return { impl: "ts-mls", ops: Object.keys(ops) };
  },
  async new_client(request) {
    const suite = await suiteOf(request.suite ?? 1);
    const keys = await suite.signature.keygen();
    const identity = request.identity ?? request.client;
    clients.set(request.client, { identity, suite, keys, packages: new Map(), psks: {} });
    return {};
  },
  async key_package(request) {
    const client = clients.get(request.client);
    const made = await newKeyPackage(client, request);
    const kp = encode({ wireformat: "mls_key_package", keyPackage: made.publicPackage });
    client.packages.set(kp, made);
    return { kp };
  },
  async psk(request) {
    clients.get(request.client).psks[mls.bytesToBase64(bytes(request.id))] = bytes(request.psk);
    return {};
  },
  async create_group(request) {
    const client = clients.get(request.client);
    const own = await newKeyPackage(client, request);
    const listed = extensions(request.group_extensions);
    const id = bytes(request.group_id);
    client.state = await mls.createGroup(id, own.publicPackage, own.privatePackage, listed, client.suite);
    return {};
  },
  async commit(request) {
    const client = clients.get(request.client);
    const result = await mls.createCommit(
      { state: client.state, cipherSuite: client.suite, pskIndex: psksOf(client) },
      {
        extraProposals: proposals(request),
        wireAsPublicMessage: isPublic(request),
        ratchetTreeExtension: request.tree !== false,
        authenticatedData: bytes(request.aad),
      },
    );
    if (request.apply === false) client.pending = result.newState;
    else client.state = result.newState;
    const welcome = result.welcome && encode({ wireformat: "mls_welcome", welcome: result.welcome });
    return { commit: encode(result.commit), welcome: welcome ?? null };
  },
  async apply_pending(request) {
    const client = clients.get(request.client);
    client.state = client.pending;
    client.pending = undefined;
    return {};
  },
  async drop_pending(request) {
    clients.get(request.client).pending = undefined;
    return {};
  },
  async propose(request) {
    const client = clients.get(request.client);
    const [proposal] = proposals(request);
    if (!proposal) return { unsupported: "propose an update" };
    const aad = bytes(request.aad);
    const result = await mls.createProposal(client.state, isPublic(request), proposal, client.suite, aad);
    client.state = result.newState;
    return { msg: encode(result.message) };
  },
  async join(request) {
    const client = clients.get(request.client);
    const { welcome } = decode(request.welcome, "mls_welcome");
    const tree = request.tree ? decodeRatchetTree(bytes(request.tree), 0)[0] : undefined;
    const psks = mls.makePskIndex(undefined, client.psks);
    let refusal = new Error("no key package");
    for (const [kp, own] of client.packages) {
      try {
        client.state = await mls.joinGroup(welcome, own.publicPackage, own.privatePackage, psks, client.suite, tree);
        client.packages.delete(kp);
        return {};
      } catch (error) {
        refusal = error;
      }
    }
    throw refusal;
  },
  async encrypt(request) {
    const client = clients.get(request.client);
    const aad = bytes(request.aad);
    const result = await mls.createApplicationMessage(client.state, bytes(request.data), client.suite, aad);
    client.state = result.newState;
    return { msg: encode({ wireformat: "mls_private_message", privateMessage: result.privateMessage }) };
  },
  async process(request) {
    const client = clients.get(request.client);
    const message = decode(request.msg);
    if (message.wireformat === "mls_private_message") return receivePrivate(client, message.privateMessage);
    if (message.wireformat !== "mls_public_message") throw new Error(`${message.wireformat} cannot be processed`);
    const { content } = message.publicMessage;
    const result = await mls.processPublicMessage(client.state, message.publicMessage, psksOf(client), client.suite);
    client.state = result.newState;
    const aad = hex(content.authenticatedData);
    return { kind: content.contentType, sender: content.sender.leafIndex ?? null, removed: wasRemoved(client), aad };
  },
  async group_info(request) {
    const client = clients.get(request.client);
    const groupInfo = await mls.createGroupInfoWithExternalPubAndRatchetTree(client.state, [], client.suite);
    return { group_info: encode({ wireformat: "mls_group_info", groupInfo }) };
  },
  async ratchet_tree(request) {
    return { tree: hex(encodeRatchetTree(clients.get(request.client).state.ratchetTree)) };
  },
  async external_commit(request) {
    const client = clients.get(request.client);
    const { groupInfo } = decode(request.group_info, "mls_group_info");
    const { publicPackage, privatePackage } = await newKeyPackage(client, request);
    const resync = request.resync ?? false;
    const joined = await mls.joinGroupExternal(groupInfo, publicPackage, privatePackage, resync, client.suite);
    client.state = joined.newState;
    return { commit: encode({ wireformat: "mls_public_message", publicMessage: joined.publicMessage }) };
  },
  async signer_new(request) {
    const { signKey, publicKey } = await (await suiteOf(1)).signature.keygen();
    const credential = { credentialType: "basic", identity: text.encode(request.identity) };
    const extension = encodeExternalSenders([{ credential, signaturePublicKey: publicKey }]);
    return { pub: hex(publicKey), priv: hex(signKey), extension: hex(extension) };
  },
  async external_remove(request) {
    const { groupInfo } = decode(request.group_info, "mls_group_info");
    const remove = { proposalType: "remove", remove: { removed: request.leaf } };
    const [pub, priv] = [bytes(request.pub), bytes(request.priv)];
    return { msg: encode(await mls.proposeExternal(groupInfo, remove, pub, priv, await suiteOf(1))) };
  },
  async export(request) {
    const client = clients.get(request.client);
    const secret = client.state.keySchedule.exporterSecret;
    const context = bytes(request.context);
    return { secret: hex(await mls.mlsExporter(secret, request.label, context, request.length ?? 32, client.suite)) };
  },
  async save(request) {
    return { blob: hex(mls.encodeGroupState(clients.get(request.client).state)) };
  },
  async load(request) {
    const [state] = mls.decodeGroupState(bytes(request.blob), 0);
    clients.get(request.client).state = { ...state, clientConfig: defaultClientConfig };
    return {};
  },
  async state(request) {
    const { state } = clients.get(request.client);
    const members = state.ratchetTree.flatMap((node, i) =>
      node?.nodeType === "leaf" ? [[i / 2, hex(node.leaf.credential.identity)]] : [],
    );
    return {
      epoch: Number(state.groupContext.epoch),
      auth: hex(state.keySchedule.epochAuthenticator),
      own: state.privatePath.leafIndex,
      members,
      pending_proposals: Object.keys(state.unappliedProposals).length,
      digest: createHash("sha256").update(mls.encodeGroupState(state)).digest("hex"),
    };
  },
};

async function answer(line) {
  try {
    const request = JSON.parse(line);
    return ops[request.op] ? await ops[request.op](request) : { unsupported: request.op };
  } catch (error) {
    return { error: `${error?.name ?? "Error"}: ${error?.message ?? error}`.slice(0, 300) };
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  if (line.trim()) process.stdout.write(`${JSON.stringify(await answer(line))}\n`);
}
