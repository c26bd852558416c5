"""Chat templates of real families, written from their published formats, and what each writes for an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A chat template, its special tokens, and the text that a model of the family is to write for an answer."""

    name: str
    template: str
    tokens: tuple[str, ...]
    before: str = ""
    """What the model writes before the answer's words."""
    end: str = ""
    """What ends an answer that is followed by another turn."""
    last: str | None = None
    """What ends the last one, if it differs."""
    bos: str = "<s>"
    eos: str = "</s>"
    has_system: bool = True

    def write(self, answer: str, is_last: bool) -> str:
        """The text to be learned for an answer."""
        return self.before + answer + (self.last if is_last and self.last is not None else self.end)


def _loop(body: str, prompt: str = "", start: str = "") -> str:
    ask = "{% if add_generation_prompt %}" + prompt + "{% endif %}" if prompt else ""
    return f"{start}{{% for message in messages %}}{body}{{% endfor %}}{ask}"


_PARTS = (
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
)
CHATML = Family(
    "ChatML",
    _loop("<|im_start|>{{ message['role'] }}\n" + _PARTS + "<|im_end|>\n", "<|im_start|>assistant\n"),
    (),
    end="<|im_end|>",
    eos="<|im_end|>",
)
LLAMA2 = Family(
    "Llama 2",
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = '<<SYS>>\n' + "
    "messages[0]['content'] + '\n<</SYS>>\n\n' %}{% else %}{% set loop_messages = messages %}{% set system = '' %}"
    "{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.first %}{% set content = system + "
    "message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}",
    (),
    before=" ",
    end=" </s>",
)
LLAMA3 = Family(
    "Llama 3",
    _loop(
        "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n" + _PARTS + "<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "{{ bos_token }}",
    ),
    ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>"),
    end="<|eot_id|>",
    bos="<|begin_of_text|>",
    eos="<|eot_id|>",
)
MISTRAL = Family(
    "Mistral",
    _loop(
        "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == "
        "'assistant' %}{{ ' ' + message['content'] + eos_token }}{% else %}{{ raise_exception('no system turns') }}"
        "{% endif %}",
        start="{{ bos_token }}",
    ),
    ("[INST]", "[/INST]"),
    before=" ",
    end="</s>",
    has_system=False,
)
GEMMA = Family(
    "Gemma",
    _loop(
        "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
        "{% for part in message['content'] %}{{ part['text'] | trim }}{% endfor %}<end_of_turn>\n",
        "<start_of_turn>model\n",
        "{{ bos_token }}",
    ),
    ("<start_of_turn>", "<end_of_turn>", "\n\n"),
    end="<end_of_turn>",
    eos="<eos>",
)
PHI3 = Family(
    "Phi-3",
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
    ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
    end="<|end|>",
    last="<|end|>\n<|endoftext|>",
    eos="<|endoftext|>",
)
VICUNA = Family(
    "Vicuna",
    "A chat. {% for message in messages %}{% if message['role'] == 'user' %}USER: {{ message['content'] }} {% elif "
    "message['role'] == 'assistant' %}ASSISTANT: {{ message['content'] }}</s>{% else %}{{ message['content'] }} "
    "{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    (),
    before=" ",
    end="</s>",
)
LLAVA = Family(
    "LLaVA 1.5",
    _loop(
        "{{ message['role'].upper() }}: {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
        "{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}",
        "ASSISTANT:",
    ),
    (),
    before=" ",
    last="</s>",
)
LLAVA_HF = Family(
    "LLaVA 1.5, marked",
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' ' }}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    (),
)
DEEPSEEK = Family(
    "DeepSeek",
    _loop(
        "{% if message['role'] == 'user' %}<｜User｜>{{ message['content'] }}{% elif message['role'] == 'assistant' %}"
        "<｜Assistant｜>{{ message['content'] }}<｜end▁of▁sentence｜>{% else %}{{ message['content'] }}{% endif %}",
        "<｜Assistant｜>",
        "{{ bos_token }}",
    ),
    ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
    end="<｜end▁of▁sentence｜>",
    bos="<｜begin▁of▁sentence｜>",
    eos="<｜end▁of▁sentence｜>",
)
DEEPSEEK_R1 = Family(
    "DeepSeek-R1",
    DEEPSEEK.template.replace(
        "<｜Assistant｜>{{ message['content'] }}", "<｜Assistant｜>{{ message['content'].split('</think>')[-1] }}"
    ).replace("<｜Assistant｜>{% endif %}", "<｜Assistant｜><think>\n{% endif %}"),
    (*DEEPSEEK.tokens, "<think>", "</think>"),
    end=DEEPSEEK.end,
    bos=DEEPSEEK.bos,
    eos=DEEPSEEK.eos,
)
ZEPHYR = Family(
    "Zephyr",
    _loop("<|{{ message['role'] }}|>\n{{ message['content'] + eos_token }}\n", "<|assistant|>\n"),
    (),
    end="</s>",
)
COMMAND_R = Family(
    "Command R",
    _loop(
        "<|START_OF_TURN_TOKEN|>{{ {'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>', 'system': "
        "'<|SYSTEM_TOKEN|>'}[message['role']] }}{{ message['content'].strip() }}<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "{{ bos_token }}",
    ),
    (
        *("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>"),
        *("<|SYSTEM_TOKEN|>", "<BOS_TOKEN>"),
    ),
    end="<|END_OF_TURN_TOKEN|>",
    bos="<BOS_TOKEN>",
    eos="<|END_OF_TURN_TOKEN|>",
)
QWEN3 = Family(
    "Qwen3",
    "{% set ns = namespace(last=0) %}{% for message in messages %}{% if message['role'] == 'user' %}{% set ns.last = "
    "loop.index0 %}{% endif %}{% endfor %}{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] != 'assistant' %}<|im_start|>{{ message['role'] }}\n{{ content }}<|im_end|>\n{% else %}"
    "{% set thought = '' %}{% if '</think>' in content %}{% set thought = content.split('</think>')[0].rstrip('\n')"
    ".split('<think>')[-1].lstrip('\n') %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "<|im_start|>assistant\n{% if loop.index0 > ns.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n"
    "{{ content.lstrip('\n') }}{% else %}{{ content }}{% endif %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ("<think>", "</think>"),
    eos="<|im_end|>",
)
GRANITE = Family(
    "Granite",
    _loop(
        "<|start_of_role|>{{ message['role'] }}<|end_of_role|>" + _PARTS + "<|end_of_text|>\n",
        "<|start_of_role|>assistant<|end_of_role|>",
    ),
    ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    end="<|end_of_text|>",
    bos="<|end_of_text|>",
    eos="<|end_of_text|>",
)
UNMARKED = (
    *(CHATML, LLAMA2, LLAMA3, MISTRAL, GEMMA, PHI3, VICUNA, LLAVA, DEEPSEEK, DEEPSEEK_R1, ZEPHYR, COMMAND_R, GRANITE),
)
