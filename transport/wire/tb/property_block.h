// Property blocks: the tree by which a host describes itself and its services to the host at the
// other end of a cable. A block is at most kPropertyBlockMax words, fetched in fragments
// (property_transfer.h); docs/wire.md, section 6.3, and the kernel's
// drivers/thunderbolt/property.c.
//
// A foreign block is taken apart in time and memory bounded by its length, whatever its offsets
// say: every one is compared with the block, directories may not contain themselves, and no more
// entries are read than the block has room for.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "wire/tb/uuid.h"
#include "wire/tb/xdomain.h"

namespace tbt::wire::tb {

inline constexpr size_t kPropertyKeyMax = 8;
inline constexpr unsigned kPropertyDepthMax = 8;  // directories below the root's

// Eight bytes, shorter names filled up with zeros. Not always text: Apple's begin with 0xff.
struct PropertyKey {
  std::array<char, kPropertyKeyMax> chars{};

  PropertyKey() = default;
  // The name must not be longer than kPropertyKeyMax; what is beyond is cut off.
  explicit constexpr PropertyKey(std::string_view name) {
    for (size_t i = 0; i < name.size() && i < chars.size(); ++i) chars[i] = name[i];
  }
  [[nodiscard]] std::string_view name() const noexcept;
  friend bool operator==(const PropertyKey&, const PropertyKey&) = default;
};

struct Property;

struct PropertyDirectory {
  Uuid uuid;  // the root has none, and zeros here
  std::vector<Property> entries;

  void add(std::string_view key, uint32_t value);
  void add(std::string_view key, std::string_view text);
  void add(std::string_view key, PropertyDirectory directory);

  // The first entry of that key and type: keys may stand more than once, with different types.
  [[nodiscard]] const uint32_t* find_value(std::string_view key) const;
  [[nodiscard]] const std::string* find_text(std::string_view key) const;
  [[nodiscard]] const PropertyDirectory* find_directory(std::string_view key) const;

  friend bool operator==(const PropertyDirectory& a, const PropertyDirectory& b);
};

using PropertyData = std::vector<uint32_t>;  // words, as they stand in the block

struct Property {
  PropertyKey key;
  // Texts are bytes up to the first zero; whoever prints a foreign one makes it printable first.
  std::variant<uint32_t, std::string, PropertyData, PropertyDirectory> value;

  friend bool operator==(const Property& a, const Property& b);
};

enum class PropertyError : uint8_t {
  kNone,
  kTooLong,     // more words than a block may have
  kBadMagic,    // too short for a root, or none of a known version
  kBadLength,   // of a directory, a text or a value
  kOutOfBlock,  // an entry points outside
  kTooDeep,
  kCycle,           // a directory overlaps one that contains it
  kTooManyEntries,  // directories are shared so that there are more entries than fit a block
  kBadText,         // a zero inside a text (building only)
};

// Entries of unknown types are left out. `root` is only written on kNone.
PropertyError parse_property_block(std::span<const uint32_t> block, PropertyDirectory& root);

// Lays the tree out as Linux does. `block` is only written on kNone.
PropertyError build_property_block(const PropertyDirectory& root, std::vector<uint32_t>& block);

const char* property_error_name(PropertyError error) noexcept;

}  // namespace tbt::wire::tb
