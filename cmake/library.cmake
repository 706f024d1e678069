# The library that others link: libtessera.so and libtessera.a from the same objects, of which only
# tessera_* can be seen, and the files that `make install` puts beside them: headers, tessera.pc,
# man pages, models and data. A new public header goes into include/.
set(library_rooms base image hub tensor comm parallel nn models schedulers tokenizers checkpoint pipelines split)
set(library_objects ${backend_objects})
foreach(room ${library_rooms})
  list(APPEND library_objects $<TARGET_OBJECTS:room_${room}>)
endforeach()

add_library(libtessera_shared SHARED ${library_objects})
set_target_properties(libtessera_shared PROPERTIES OUTPUT_NAME tessera VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
  LINKER_LANGUAGE C LINK_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/tessera.map)
target_include_directories(libtessera_shared INTERFACE include)
target_link_options(libtessera_shared PRIVATE -Wl,--version-script=${CMAKE_CURRENT_LIST_DIR}/tessera.map)
if(NOT TESSERA_SANITIZE)  # whose functions the program brings
  target_link_options(libtessera_shared PRIVATE -Wl,--no-undefined)
endif()
target_link_libraries(libtessera_shared PRIVATE PkgConfig::CJSON PkgConfig::CURL PkgConfig::GNUTLS PkgConfig::MICROHTTPD PkgConfig::OPENSSL PkgConfig::UTF8PROC
  PkgConfig::PNG PkgConfig::JPEG PkgConfig::WEBP PkgConfig::TIFF GIF::GIF
  MPI::MPI_C Threads::Threads OpenMP::OpenMP_C ${DNNL_LIBRARY} m)

# One object with all others inside, its inner names made local, so that they cannot clash with a
# program's own.
set(library_object ${CMAKE_BINARY_DIR}/libtessera.o)
add_custom_command(OUTPUT ${library_object}
  COMMAND ${CMAKE_LINKER} -r -o ${library_object} ${library_objects}
  COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=tessera_* ${library_object}
  DEPENDS ${library_objects} COMMAND_EXPAND_LISTS VERBATIM)
add_library(libtessera_static STATIC ${library_object})
set_target_properties(libtessera_static PROPERTIES OUTPUT_NAME tessera LINKER_LANGUAGE C)
foreach(room ${library_rooms})
  add_dependencies(libtessera_static room_${room}) # make knows the objects by name only, and must not ask for them before they are there
endforeach()
add_dependencies(libtessera_static room_backend)

# tessera.pc finds its folders from where it lies, so that an installed tree may be moved.
file(RELATIVE_PATH PKGCONFIG_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
string(REGEX REPLACE "/$" "" PKGCONFIG_TO_PREFIX ${PKGCONFIG_TO_PREFIX})
configure_file(${CMAKE_CURRENT_LIST_DIR}/tessera.pc.in ${CMAKE_BINARY_DIR}/tessera.pc @ONLY)

# tessera(1) says what `tessera help` says.
set(manual ${CMAKE_BINARY_DIR}/tessera.1)
add_custom_command(OUTPUT ${manual}
  COMMAND sh ${PROJECT_SOURCE_DIR}/man/tessera.1.sh $<TARGET_FILE:tessera> ${manual}
  DEPENDS tessera ${PROJECT_SOURCE_DIR}/man/tessera.1.sh)
add_custom_target(manual ALL DEPENDS ${manual})

# What shells complete comes from the same tables.
foreach(shell bash zsh fish)
  add_custom_command(OUTPUT ${CMAKE_BINARY_DIR}/tessera.${shell}
    COMMAND sh -c "$<TARGET_FILE:tessera> completion ${shell} > tessera.${shell}.new && mv tessera.${shell}.new tessera.${shell}"
    WORKING_DIRECTORY ${CMAKE_BINARY_DIR} DEPENDS tessera VERBATIM)
  list(APPEND completions ${CMAKE_BINARY_DIR}/tessera.${shell})
endforeach()
add_custom_target(completions ALL DEPENDS ${completions})

install(TARGETS tessera libtessera_shared libtessera_static)
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES ${CMAKE_BINARY_DIR}/tessera.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${manual} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${CMAKE_BINARY_DIR}/tessera.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME tessera)
install(FILES ${CMAKE_BINARY_DIR}/tessera.zsh DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions RENAME _tessera)
install(FILES ${CMAKE_BINARY_DIR}/tessera.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES man/libtessera.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
install(DIRECTORY models/emoji models/emoji-unet DESTINATION ${CMAKE_INSTALL_DATADIR}/tessera/models PATTERN *.xz EXCLUDE)
install(DIRECTORY assets DESTINATION ${CMAKE_INSTALL_DATADIR}/tessera PATTERN *.xz EXCLUDE)
