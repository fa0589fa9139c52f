/** People and talk for the preview. Nobody in here exists. */

import type { ConversationRow, Message, Person, Problem } from "../src/bridge/types";

export const me: Person = { userId: "u-amara", name: "Amara Okafor", role: "physician", isMe: true };
const fiona: Person = { userId: "u-fiona", name: "Fiona Wu", role: "nurse" };
const lee: Person = { userId: "u-lee", name: "Jun Lee", role: "physician" };
const ben: Person = { userId: "u-ben", name: "Ben Haddad", role: "physician" };
const ines: Person = { userId: "u-ines", name: "Inês Carvalho", role: "clerk" };
const tom: Person = { userId: "u-tom", name: "Tomasz Nowak", role: "nurse" };
const noor: Person = { userId: "u-noor", name: "Noor Siddiqui", role: "physician" };
const hanna: Person = { userId: "u-hanna", name: "Hanna Lindqvist", role: "physician" };
const archive: Person = { userId: "u-archive", name: "Record archive", role: "bot", isBot: true };
export const everybody = [fiona, lee, ben, ines, tom, noor, hanna, archive];

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** A quiet night: everything is dated against 03:12 of the day the preview is opened. */
export const now = new Date().setHours(3, 12, 0, 0);
const ago = (minutes: number): number => now - minutes * MINUTE;

export const alarm: Problem = {
  code: "untrusted_device",
  title: "A device is not vouched for by your organisation.",
  detail: "Its certificate was not signed by the authority that this app trusts since you joined.",
  nextStep: "The app refused it, and nothing was sent to it. Tell your security officer which device was named.",
  members: { device: "Ben Haddad, Windows PC", check: "trust.chain.signature" },
};

function row(id: string, rest: Partial<ConversationRow> & { members: Person[]; title: string }): ConversationRow {
  return {
    id,
    kind: "direct",
    lastText: "",
    lastAt: 0,
    lastIsMine: false,
    unread: 0,
    draft: "",
    ...rest,
    members: [me, ...rest.members],
  };
}

export function rows(): ConversationRow[] {
  return [
    row("c-fiona", { title: "Fiona Wu", members: [fiona], lastText: "Thanks, potassium is running", lastAt: ago(2), unread: 2 }),
    row("c-night", { kind: "group", title: "Ward 7 nights", members: [fiona, tom, lee, archive], lastText: "Tomasz: bed 4 is back from CT", lastAt: ago(9), unread: 5 }),
    row("c-lee", { title: "Jun Lee", members: [lee], lastText: "Could you look at this ECG when you have a minute?", lastAt: ago(31), lastIsMine: true, lastDelivery: "read" }),
    row("c-noor", { title: "Noor Siddiqui", members: [noor], lastText: "Handover list is on the desk", lastAt: ago(58), draft: "Before you go, the drain in bed 9" }),
    row("c-ben", { title: "Ben Haddad", members: [ben], lastText: "See you at eight", lastAt: ago(3 * 60), alarm }),
    row("c-resus", { kind: "group", title: "Resus team", members: [lee, hanna, tom], lastText: "Debrief at 07:30, seminar room", lastAt: ago(5 * 60), lastIsMine: true, lastDelivery: "delivered" }),
    row("c-hanna", { title: "Hanna Lindqvist", members: [hanna], lastText: "Theatre 2 is ready whenever you are", lastAt: ago(27 * 60), lastIsMine: true, lastDelivery: "sent" }),
    row("c-ines", { title: "Inês Carvalho", members: [ines], lastText: "The discharge letter went out", lastAt: ago(52 * 60) }),
    row("c-tom", { title: "Tomasz Nowak", members: [tom], lastText: "Photo", lastAt: ago(75 * 60) }),
  ];
}

let sequence = 0;

export function message(conversationId: string, sender: Person, at: number, text: string, rest: Partial<Message> = {}): Message {
  sequence += 1;
  const isMine = sender === me;
  return {
    id: `m-${sequence}`,
    conversationId,
    sequence,
    sender,
    isMine,
    kind: "text",
    text,
    attachments: [],
    at,
    ...(isMine ? { delivery: "read" as const } : {}),
    ...rest,
  };
}

export const LONG = `Handover, bed 12. Admitted from the emergency department at 21:40 with three days of fever, cough and confusion.

Situation: sepsis, source chest. Lactate 3.1, then 1.9 after two litres.
Background: 78, heart failure (EF 40), CKD 3, penicillin rash as a child, lives alone, daughter informed.
Assessment: responding. MAP 68 without pressors, saturation 93 on 2 litres, less confused since midnight.
Recommendation: second dose of antibiotics at 04:00, repeat lactate and gases at 05:00, fluids only after review because of the heart failure, urine output hourly, call me below 30 ml an hour.

Blood cultures are taken and labelled. Legionella antigen is sent, result in the morning. The chest film shows a right lower lobe consolidation; radiology has not reported it yet. DVT prophylaxis is given.

Open: resuscitation status was discussed with the daughter, she wants to speak to the consultant at eight. The pharmacy asks for the home medication list, the daughter brings it. If the pressure falls under 60 again, ICU knows about the bed and will come; the registrar is Jun Lee until eight.`;

/** The conversation of the screenshots: an ECG in the night. */
export function leeTalk(thumbnail: Uint8Array<ArrayBuffer>): Message[] {
  const c = "c-lee";
  const echo = message(c, lee, ago(26 * 60), "Echo from this morning: EF 55, no regional wall motion abnormality.");
  const thanks = message(c, me, ago(26 * 60 - 2), "Perfect, thank you");
  const first = message(c, me, ago(38), "Jun, are you near 7? 64-year-old, bed 12, chest tightness since half past two.");
  const question = message(c, lee, ago(37), "Two minutes away. Troponin sent?", { inReplyTo: { id: first.id, sender: me.name, text: first.text } });
  const photo = message(c, me, ago(35), "Taken just now. Old one was clean.", {
    kind: "photo",
    attachments: [{ index: 0, kind: "image", name: "photo.jpg", mediaType: "image/jpeg", size: 412_000, width: 1600, height: 1000, thumbnail }],
  });
  return [
    echo,
    thanks,
    first,
    question,
    photo,
    message(c, lee, ago(33), "ST up in II, III, aVF. That is an inferior one. Right-sided leads please, and no nitrates until we have seen V4R."),
    message(c, lee, ago(33), "Calling the cath lab now: https://intranet.example/cathlab/on-call"),
    message(c, me, ago(32), "Aspirin 300 is in. Pressure 104/62, pulse 58.", { delivery: "read" }),
    message(c, me, ago(31), "Could you look at this ECG when you have a minute?", { delivery: "delivered" }),
    message(c, me, ago(1), "V4R is running, picture follows", { sequence: 0, delivery: "sending" }),
  ];
}

export function nightTalk(): Message[] {
  const c = "c-night";
  return [
    message(c, me, ago(9 * 60), "Amara added the record archive. It keeps a copy for the hospital.", { kind: "note" }),
    message(c, tom, ago(50), "Bed 9 drain 40 ml since midnight, clear."),
    message(c, me, ago(48), "Good. Leave it in."),
    message(c, me, ago(47), "Result of bed 3?", {
      delivery: "failed",
      problem: { code: "storage_full", title: "There is no room left.", detail: "", nextStep: "Your message is kept. Tell your administrator that the disk is full." },
    }),
    message(c, fiona, ago(22), LONG),
    message(c, tom, ago(14), "Bed 4 to CT"),
    message(c, tom, ago(13), "Porter is here"),
    message(c, lee, ago(11), "I will read it from home"),
    message(c, tom, ago(9), "bed 4 is back from CT"),
  ];
}

export function longTalk(): Message[] {
  const lines = ["Yes", "On my way", "Can you check the drip in bed 5? It beeps again.", "Done", "The pharmacy called back: dose is fine, no interaction with the new tablet.", "👍", "Who has the bleep?"];
  const talk: Message[] = [];
  for (let index = 0; index < 900; index += 1) {
    const sender = index % 3 === 0 ? me : index % 3 === 1 ? fiona : tom;
    talk.push(message("c-night", sender, now - (900 - index) * 0.3 * HOUR, `${index + 1}. ${lines[index % lines.length]}`));
  }
  return talk;
}
