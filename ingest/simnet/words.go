package simnet

// wordList mixes scripts, so that texts are more than ASCII.
const wordList = `the be to of and a in that have it for not on with he as you do at this but his by from they we say
her she or an will my one all would there their what so up out if about who get which go me when make can like time no
just him know take people into year your good some could them see other than then now look only come its over think also
back after use two how our work first well way even new want because any these give day most us cat dog music game art
photo sky blue coffee morning tonight weekend film book train rain snow garden city river mountain code bug server
release update thread follow post feed timeline friend hoje está você não coração saudade música então também já é
amanhã 今日 天気 猫 かわいい 新しい おはよう 眠い ゲーム 写真 青空 電車 ラーメン привет мир снег 🌊 🐟 🎉 naïve café über`
