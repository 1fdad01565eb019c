// A block is parsed and built by recursion over its directories, at most kPropertyDepthMax deep.
//
//   root:  magic, length of the entries | entries | leaves | a zero word per child | children
//   child: UUID                         | entries | leaves | a zero word per child | children
//
// An entry has four words: two of key, type and length, value or offset from the block's start.
#include "wire/tb/property_block.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace tbt::wire::tb {
namespace {

constexpr uint32_t kMagic = 0x55584401;  // "UXD" 1
constexpr size_t kRootHeaderWords = 2, kUuidWords = 4, kEntryWords = 4;
constexpr uint8_t kTypeDirectory = 'D', kTypeData = 'd', kTypeText = 't', kTypeValue = 'v';

// Characters stand in a word from its high byte to its low one.
uint32_t pack(std::string_view text, size_t at) {
  uint32_t word = 0;
  for (size_t i = 0; i < 4; ++i) {
    word = word << 8 | (at + i < text.size() ? static_cast<uint8_t>(text[at + i]) : 0);
  }
  return word;
}
char unpack(uint32_t word, size_t i) { return static_cast<char>(word >> (24 - 8 * i)); }

size_t text_words(const std::string& text) { return text.size() / 4 + 1; }  // with a zero byte

struct Range {
  size_t begin = 0, end = 0;
};
bool overlap(const Range& a, const Range& b) { return a.begin < b.end && b.begin < a.end; }

class Parser {
 public:
  explicit Parser(std::span<const uint32_t> block)
      : block_(block), entries_left_(block.size() / kEntryWords) {}

  PropertyError root(PropertyDirectory& out) {
    if (block_.size() > kPropertyBlockMax) return PropertyError::kTooLong;
    if (block_.size() < kRootHeaderWords || block_[0] != kMagic) return PropertyError::kBadMagic;
    if (block_[1] > block_.size() - kRootHeaderWords) return PropertyError::kOutOfBlock;
    return entries({0, kRootHeaderWords + block_[1]}, kRootHeaderWords, 0, out);
  }

 private:
  // The entries of the directory that takes up `range`, after its header.
  PropertyError entries(Range range, size_t header_words, unsigned depth, PropertyDirectory& out) {
    const std::span<const uint32_t> words =
        block_.subspan(range.begin, range.end - range.begin).subspan(header_words);
    if (words.size() % kEntryWords != 0) return PropertyError::kBadLength;
    above_[depth] = range;
    for (size_t at = 0; at < words.size(); at += kEntryWords) {
      if (entries_left_-- == 0) return PropertyError::kTooManyEntries;
      const PropertyError error = entry(words.subspan(at).first<kEntryWords>(), depth, out);
      if (error != PropertyError::kNone) return error;
    }
    return PropertyError::kNone;
  }

  PropertyError entry(std::span<const uint32_t, kEntryWords> words, unsigned depth,
                      PropertyDirectory& out) {
    Property property;
    for (size_t i = 0; i < kPropertyKeyMax; ++i) {
      property.key.chars[i] = unpack(words[i / 4], i % 4);
    }
    const auto type = static_cast<uint8_t>(words[2] >> 24);
    const size_t length = words[2] & 0xffff;
    const uint32_t value = words[3];
    PropertyError error = PropertyError::kNone;
    if (type == kTypeValue) {
      if (length != 1) return PropertyError::kBadLength;
      property.value = value;
    } else if (type == kTypeText || type == kTypeData || type == kTypeDirectory) {
      if (value > block_.size() || length > block_.size() - value) {
        return PropertyError::kOutOfBlock;
      }
      const Range range{value, value + length};
      error = type == kTypeDirectory ? directory(range, depth + 1, property)
                                     : leaf(range, type == kTypeText, property);
    } else {
      return PropertyError::kNone;
    }
    if (error == PropertyError::kNone) out.entries.push_back(std::move(property));
    return error;
  }

  PropertyError leaf(Range range, bool is_text, Property& out) {
    const std::span<const uint32_t> words = block_.subspan(range.begin, range.end - range.begin);
    if (!is_text) {
      out.value = PropertyData(words.begin(), words.end());
      return PropertyError::kNone;
    }
    if (words.empty()) return PropertyError::kBadLength;
    std::string text;
    for (size_t i = 0; i < words.size() * 4; ++i) {
      const char c = unpack(words[i / 4], i % 4);
      if (c == '\0') break;
      text.push_back(c);
    }
    out.value = std::move(text);
    return PropertyError::kNone;
  }

  PropertyError directory(Range range, unsigned depth, Property& out) {
    if (depth > kPropertyDepthMax) return PropertyError::kTooDeep;
    if (range.end - range.begin < kUuidWords) return PropertyError::kBadLength;
    for (unsigned i = 0; i < depth; ++i) {
      if (overlap(above_[i], range)) return PropertyError::kCycle;
    }
    PropertyDirectory child;
    DwordReader header(block_.subspan(range.begin, kUuidWords));
    child.uuid = header.take_uuid();
    const PropertyError error = entries(range, kUuidWords, depth, child);
    out.value = std::move(child);
    return error;
  }

  std::span<const uint32_t> block_;
  size_t entries_left_;
  std::array<Range, kPropertyDepthMax + 1> above_{};  // from the root to where we are
};

class Builder {
 public:
  PropertyError directory(const PropertyDirectory& dir, unsigned depth) {
    if (depth > kPropertyDepthMax) return PropertyError::kTooDeep;
    const size_t start = block_.size();
    const size_t header_words = depth == 0 ? kRootHeaderWords : kUuidWords;
    const size_t own_words = header_words + kEntryWords * dir.entries.size();
    size_t leaf_at = start + own_words;
    if (const PropertyError error = reserve(dir, leaf_at); error != PropertyError::kNone) {
      return error;
    }
    if (depth == 0) {
      block_[start] = kMagic;
      block_[start + 1] = static_cast<uint32_t>(own_words - header_words);
    } else {
      for (unsigned i = 0; i < kUuidWords; ++i) block_[start + i] = uuid_dword(dir.uuid, i);
    }
    size_t entry_at = start + header_words;
    for (const Property& property : dir.entries) {
      const PropertyError error = entry(property, depth, entry_at, leaf_at);
      if (error != PropertyError::kNone) return error;
      entry_at += kEntryWords;
    }
    return PropertyError::kNone;
  }
  std::vector<uint32_t> take() { return std::move(block_); }

 private:
  // Room for the directory, whose own words end at `leaves`, and all that is not in its children.
  PropertyError reserve(const PropertyDirectory& dir, size_t leaves) {
    size_t end = leaves;
    for (const Property& property : dir.entries) {
      if (const auto* text = std::get_if<std::string>(&property.value)) {
        if (text->find('\0') != std::string::npos) return PropertyError::kBadText;
        end += text_words(*text);
      } else if (const auto* data = std::get_if<PropertyData>(&property.value)) {
        end += data->size();
      } else if (std::holds_alternative<PropertyDirectory>(property.value)) {
        ++end;  // Linux leaves a word free for each
      }
      if (end > kPropertyBlockMax) return PropertyError::kTooLong;
    }
    if (end > kPropertyBlockMax) return PropertyError::kTooLong;
    block_.resize(end);
    return PropertyError::kNone;
  }

  PropertyError entry(const Property& property, unsigned depth, size_t at, size_t& leaf_at) {
    const std::string_view key(property.key.chars.data(), property.key.chars.size());
    block_[at] = pack(key, 0);
    block_[at + 1] = pack(key, 4);
    if (const auto* value = std::get_if<uint32_t>(&property.value)) {
      finish(at, kTypeValue, 1, *value);
    } else if (const auto* text = std::get_if<std::string>(&property.value)) {
      finish(at, kTypeText, text_words(*text), leaf_at);
      for (size_t i = 0; i < text_words(*text); ++i) block_[leaf_at++] = pack(*text, 4 * i);
    } else if (const auto* data = std::get_if<PropertyData>(&property.value)) {
      finish(at, kTypeData, data->size(), leaf_at);
      for (const uint32_t word : *data) block_[leaf_at++] = word;
    } else {
      const auto& child = std::get<PropertyDirectory>(property.value);
      finish(at, kTypeDirectory, kUuidWords + kEntryWords * child.entries.size(), block_.size());
      return directory(child, depth + 1);
    }
    return PropertyError::kNone;
  }

  void finish(size_t at, uint8_t type, size_t length, size_t value) {
    block_[at + 2] = uint32_t{type} << 24 | static_cast<uint32_t>(length);
    block_[at + 3] = static_cast<uint32_t>(value);
  }

  std::vector<uint32_t> block_;
};

template <typename T>
const T* find(const PropertyDirectory& dir, std::string_view key) {
  const PropertyKey wanted(key);
  for (const Property& property : dir.entries) {
    const T* value = std::get_if<T>(&property.value);
    if (value != nullptr && property.key == wanted) return value;
  }
  return nullptr;
}

}  // namespace

std::string_view PropertyKey::name() const noexcept {
  const auto end = std::find(chars.begin(), chars.end(), '\0');
  return {chars.data(), static_cast<size_t>(end - chars.begin())};
}

void PropertyDirectory::add(std::string_view key, uint32_t value) {
  TBT_ASSERT(key.size() <= kPropertyKeyMax);
  entries.push_back({PropertyKey(key), value});
}
void PropertyDirectory::add(std::string_view key, std::string_view text) {
  TBT_ASSERT(key.size() <= kPropertyKeyMax);
  entries.push_back({PropertyKey(key), std::string(text)});
}
void PropertyDirectory::add(std::string_view key, PropertyDirectory directory) {
  TBT_ASSERT(key.size() <= kPropertyKeyMax);
  entries.push_back({PropertyKey(key), std::move(directory)});
}

const uint32_t* PropertyDirectory::find_value(std::string_view key) const {
  return find<uint32_t>(*this, key);
}
const std::string* PropertyDirectory::find_text(std::string_view key) const {
  return find<std::string>(*this, key);
}
const PropertyDirectory* PropertyDirectory::find_directory(std::string_view key) const {
  return find<PropertyDirectory>(*this, key);
}

bool operator==(const PropertyDirectory& a, const PropertyDirectory& b) {
  return a.uuid == b.uuid && a.entries == b.entries;
}
bool operator==(const Property& a, const Property& b) {
  return a.key == b.key && a.value == b.value;
}

PropertyError parse_property_block(std::span<const uint32_t> block, PropertyDirectory& root) {
  PropertyDirectory parsed;
  const PropertyError error = Parser(block).root(parsed);
  if (error == PropertyError::kNone) root = std::move(parsed);
  return error;
}

PropertyError build_property_block(const PropertyDirectory& root, std::vector<uint32_t>& block) {
  Builder builder;
  const PropertyError error = builder.directory(root, 0);
  if (error == PropertyError::kNone) block = builder.take();
  return error;
}

const char* property_error_name(PropertyError error) noexcept {
  switch (error) {
    case PropertyError::kNone:
      return "none";
    case PropertyError::kTooLong:
      return "too long";
    case PropertyError::kBadMagic:
      return "bad magic";
    case PropertyError::kBadLength:
      return "bad length";
    case PropertyError::kOutOfBlock:
      return "outside the block";
    case PropertyError::kTooDeep:
      return "too deep";
    case PropertyError::kCycle:
      return "directory inside itself";
    case PropertyError::kTooManyEntries:
      return "too many entries";
    case PropertyError::kBadText:
      return "bad text";
  }
  return "?";
}

}  // namespace tbt::wire::tb
